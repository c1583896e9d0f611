// People who use the server through matrix-js-sdk, and the small runner of the stories they play in.
//
// Every story registers people of its own, so stories run alone, in any order, and again on a server that already has
// data. Nothing sleeps: Person.until looks again whenever the SDK reports something, and fails after LIMIT_MS.

import { randomBytes } from "node:crypto";
import * as sdk from "matrix-js-sdk";

export const LIMIT_MS = 20_000;
const STORY_LIMIT_MS = 90_000;
export const PASSWORD = "correct horse battery staple";

if (Number(process.versions.node.split(".")[0]) < 22) throw new Error(`matrix-js-sdk needs Node 22 or newer, not ${process.versions.node}`);

// The SDK and its parts log a lot, some of it past the logger that one gives them.
if (!process.env.CLIENT_LOGS) for (const level of ["trace", "debug", "info", "warn", "error"]) console[level] = () => {};
const silent = { trace() {}, debug() {}, info() {}, warn() {}, error() {}, getChild: () => silent };
const logger = process.env.CLIENT_LOGS ? undefined : silent;

// What fails in the background of the SDK fails no story by itself, but may explain why one fails.
process.on("unhandledRejection", (error) => console.log(`note: unhandled in the background: ${error?.message ?? error}`));

// All that a client reports when something has changed that a story may wait for.
const NEWS = [
    ...Object.values(sdk.ClientEvent),
    ...Object.values(sdk.RoomEvent),
    ...Object.values(sdk.RoomStateEvent),
    ...Object.values(sdk.RoomMemberEvent),
    ...Object.values(sdk.MatrixEventEvent),
    ...Object.values(sdk.ThreadEvent),
    "crypto.keyBackupSessionsRemaining",
    "crypto.keyBackupStatus",
    "userTrustStatusChanged",
];

/** One logged-in device of a user. */
export class Person {
    constructor(base, { user_id, device_id, access_token }, options = {}) {
        this.base = base;
        this.id = user_id;
        this.deviceId = device_id;
        this.client = sdk.createClient({
            baseUrl: base, userId: user_id, deviceId: device_id, accessToken: access_token, timelineSupport: true, logger,
            ...options,
        });
    }

    /** Starts syncing and returns when the first sync has come. */
    async start({ crypto = false, ...options } = {}) {
        if (crypto) await this.client.initRustCrypto({ useIndexedDB: false });
        await this.client.startClient({ threadSupport: true, pollTimeout: 5000, disablePresence: true, ...options });
        await this.until("the first sync", () => this.client.getSyncState() === sdk.SyncState.Syncing);
        return this;
    }

    room(roomId) {
        return this.client.getRoom(roomId);
    }

    /** Waits until the condition gives something true, and returns that. */
    until(what, condition, limitMs = LIMIT_MS) {
        return new Promise((resolve, reject) => {
            const look = () => {
                try {
                    const found = condition();
                    if (found) settle(resolve, found);
                } catch (error) {
                    settle(reject, error);
                }
            };
            const timer = setTimeout(() => settle(reject, new Error(`${this.id} waited ${limitMs / 1000} s in vain for ${what}`)), limitMs);
            const settle = (how, value) => {
                clearTimeout(timer);
                for (const news of NEWS) this.client.off(news, look);
                how(value);
            };
            for (const news of NEWS) this.client.on(news, look);
            look();
        });
    }

    /** Waits for an event in the room's timeline that the server has confirmed. */
    sees(roomId, what, where) {
        return this.until(what, () => this.timeline(roomId).find((event) => !event.isSending() && where(event)));
    }

    /** Waits for a message with this body. */
    reads(roomId, body) {
        return this.sees(roomId, `the message "${body}"`, (e) => e.getType() === "m.room.message" && e.getContent().body === body);
    }

    timeline(roomId) {
        return this.room(roomId)?.getLiveTimeline().getEvents() ?? [];
    }

    /** Sends a text and returns its event id. */
    async says(roomId, body, content = {}) {
        const sent = await this.client.sendEvent(roomId, "m.room.message", { msgtype: "m.text", body, ...content });
        return sent.event_id;
    }

    isIn(roomId, membership = "join") {
        return this.until(`membership "${membership}" of ${roomId}`, () => this.room(roomId)?.getMyMembership() === membership);
    }

    leaveStage() {
        this.client.stopClient();
    }
}

/** Makes the people of one story and sends them home at its end. */
export class Cast {
    constructor(base) {
        this.base = base;
        this.people = [];
    }

    /** A client without an account. */
    stranger() {
        return sdk.createClient({ baseUrl: this.base, logger });
    }

    enter(session, options) {
        const person = new Person(this.base, session, options);
        this.people.push(person);
        return person;
    }

    /** Somebody newly registered who does not sync yet. */
    async newcomer(name, options) {
        const username = `${name}-${randomBytes(4).toString("hex")}`;
        return this.enter(await register(this.stranger(), username), options);
    }

    /** Somebody newly registered who syncs. */
    async person(name, startOptions, options) {
        return (await this.newcomer(name, options)).start(startOptions);
    }

    /** Another device of the same user, not started. */
    async anotherDeviceOf(person, options) {
        const identifier = { type: "m.id.user", user: person.id };
        return this.enter(await this.stranger().loginRequest({ type: "m.login.password", identifier, password: PASSWORD }), options);
    }

    /** A room of the owner that all guests have joined. Everybody must be syncing. */
    async roomOf(owner, guests = [], options = {}) {
        const invite = guests.map((g) => g.id);
        const { room_id } = await owner.client.createRoom({ preset: sdk.Preset.PrivateChat, invite, ...options });
        await owner.isIn(room_id);
        for (const guest of guests) {
            await guest.isIn(room_id, "invite");
            await guest.client.joinRoom(room_id);
            await guest.isIn(room_id);
            await owner.until(`${guest.id} in the room`, () => owner.room(room_id).getMember(guest.id)?.membership === "join");
        }
        return room_id;
    }

    goHome() {
        for (const person of this.people) person.leaveStage();
    }
}

/** Registers through user-interactive authentication, as clients do: the first answer names the flows. */
async function register(client, username) {
    const challenge = await refused(401, () => client.registerRequest({ username, password: PASSWORD }));
    const { session, flows } = challenge.data;
    if (!flows.some((flow) => flow.stages.every((stage) => stage === "m.login.dummy"))) throw new Error(`no open registration: ${JSON.stringify(flows)}`);
    return client.registerRequest({ username, password: PASSWORD, auth: { type: "m.login.dummy", session } });
}

/** Does what may ask for the password again (user-interactive authentication), and gives the password. */
export async function withPassword(person, request) {
    try {
        return await request(null);
    } catch (error) {
        if (error.httpStatus !== 401 || !error.data?.flows) throw error;
        const identifier = { type: "m.id.user", user: person.id };
        return request({ type: "m.login.password", identifier, password: PASSWORD, session: error.data.session });
    }
}

/** The error with which the server refuses the request; expected is an error code or a status, or nothing in particular. */
export async function refused(expected, request) {
    let answer;
    try {
        answer = await request();
    } catch (error) {
        if (expected === undefined || error.errcode === expected || error.httpStatus === expected) return error;
        throw new Error(`expected ${expected}, got ${error.httpStatus} ${error.errcode}: ${error.message}`, { cause: error });
    }
    throw new Error(`expected ${expected}, but the server accepted: ${JSON.stringify(answer)}`);
}

/** Asks again until the answer is right, for what the specification lets the server do a little later. */
export async function eventually(what, ask, isRight) {
    const end = Date.now() + LIMIT_MS;
    for (;;) {
        const answer = await ask();
        if (isRight(answer)) return answer;
        if (Date.now() > end) throw new Error(`waited ${LIMIT_MS / 1000} s in vain for ${what}; last: ${JSON.stringify(answer)}`);
        await new Promise((resolve) => setTimeout(resolve, 100));
    }
}

/** Runs the stories whose name contains the wanted part, prints each, and ends the process. */
export async function tell(suite, stories, base, part = "", makeCast = () => new Cast(base), closeTheHouse = () => {}) {
    const wanted = Object.entries(stories).filter(([name]) => name.includes(part));
    let failed = 0;
    for (const [name, story] of wanted) {
        const cast = makeCast();
        const began = Date.now();
        const error = await ending(story(cast));
        if (error) {
            failed += 1;
            console.log(`FAIL ${suite}: ${name}\n${error.stack}${error.cause ? `\ncaused by ${error.cause.stack}` : ""}`);
        } else {
            console.log(`ok ${suite}: ${name} (${((Date.now() - began) / 1000).toFixed(1)} s)`);
        }
        await cast.goHome(error !== null);
    }
    await closeTheHouse();
    process.exit(wanted.length > 0 && failed === 0 ? 0 : 1);
}

/** Waits for a story's end, within its limit; returns its error or null. */
async function ending(story) {
    let timer;
    const limit = new Promise((_, reject) => {
        timer = setTimeout(() => reject(new Error(`the story took over ${STORY_LIMIT_MS / 1000} s`)), STORY_LIMIT_MS);
    });
    try {
        await Promise.race([story, limit]);
        return null;
    } catch (error) {
        return error;
    } finally {
        clearTimeout(timer);
    }
}
