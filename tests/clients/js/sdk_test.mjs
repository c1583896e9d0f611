// Stories of people who use the server through matrix-js-sdk with Rust crypto, the library under most web clients.
//
// usage: node sdk_test.mjs BASE_URL [PART_OF_A_STORY_NAME]

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import * as sdk from "matrix-js-sdk";
import { SlidingSync } from "matrix-js-sdk/lib/sliding-sync.js";
import { RustBackupManager } from "matrix-js-sdk/lib/rust-crypto/backup.js";
import { eventually, PASSWORD, Person, refused, tell, withPassword } from "./people.mjs";
import { png } from "./png.mjs";

const { EventType, Filter, NotificationCountType, PushRuleKind, RelationType } = sdk;
RustBackupManager.maxBackupLoopStartDelayMillis = 0; // else a new key waits up to 10 s before it is backed up
const MEGOLM = { type: "m.room.encryption", state_key: "", content: { algorithm: "m.megolm.v1.aes-sha2" } };

const byId = (eventId) => (event) => event.getId() === eventId;
const fetchAs = (person, url) => fetch(url, { headers: { Authorization: `Bearer ${person.client.getAccessToken()}` } });
const unique = (name) => `${name}-${randomBytes(4).toString("hex")}`;

const stories = {
    async "registers and logs in with a password"(cast) {
        const alice = await cast.newcomer("alice");
        const stranger = cast.stranger();
        const { flows } = await stranger.loginFlows();
        assert(flows.some((flow) => flow.type === "m.login.password"));
        const login = (password) =>
            stranger.loginRequest({ type: "m.login.password", identifier: { type: "m.id.user", user: alice.id }, password });
        await refused("M_FORBIDDEN", () => login("wrong password"));
        const session = await login(PASSWORD);
        assert.equal(session.user_id, alice.id);
        assert.notEqual(session.device_id, alice.deviceId);
        const laptop = cast.enter(session);
        const me = await laptop.client.whoami();
        assert.deepEqual([me.user_id, me.device_id], [alice.id, session.device_id]);
        assert.equal(await stranger.isUsernameAvailable(unique("nobody")), true);
    },

    async "renews its access token"(cast) {
        const alice = await cast.newcomer("alice");
        const session = await cast.stranger().loginRequest({
            type: "m.login.password", identifier: { type: "m.id.user", user: alice.id }, password: PASSWORD, refresh_token: true,
        });
        assert(session.refresh_token && session.expires_in_ms > 0);
        const renewed = await cast.stranger().refreshToken(session.refresh_token);
        assert.notEqual(renewed.access_token, session.access_token);
        assert.equal((await cast.enter({ ...session, ...renewed }).client.whoami()).device_id, session.device_id);
        const late = await refused(undefined, () => cast.stranger().refreshToken(session.refresh_token));
        assert([401, 403].includes(late.httpStatus), "the old refresh token is used up");
    },

    async "tells what it can do"(cast) {
        const alice = await cast.newcomer("alice");
        assert(await alice.client.isVersionSupported("v1.11"), "authenticated media need v1.11");
        const { "m.room_versions": rooms, "m.change_password": password } = await alice.client.getCapabilities();
        assert.equal(rooms.available[rooms.default], "stable");
        assert.equal(password.enabled, true);
    },

    async "invites and joins"(cast) {
        const alice = await cast.person("alice"), bob = await cast.person("bob");
        const { room_id: room } = await alice.client.createRoom({ name: "Hearth", topic: "Fireside", invite: [bob.id] });
        await bob.isIn(room, "invite");
        assert.equal(bob.room(room).name, "Hearth");
        assert.equal(bob.room(room).getMember(bob.id).events.member.getSender(), alice.id);
        await bob.client.joinRoom(room);
        await bob.isIn(room);
        await alice.until("bob in the room", () => alice.room(room)?.getMember(bob.id)?.membership === "join");
        assert.equal(bob.room(room).currentState.getStateEvents("m.room.topic", "").getContent().topic, "Fireside");
        assert.equal(bob.room(room).getJoinedMemberCount(), 2);
        assert.deepEqual(Object.keys((await bob.client.getJoinedRoomMembers(room)).joined).sort(), [alice.id, bob.id].sort());
    },

    async "declines an invitation, is banned and unbanned"(cast) {
        const alice = await cast.person("alice"), bob = await cast.person("bob");
        const { room_id: room } = await alice.client.createRoom({ invite: [bob.id] });
        await bob.isIn(room, "invite");
        await bob.client.leave(room);
        await bob.isIn(room, "leave");
        await alice.client.ban(room, bob.id, "just to see");
        await refused(403, () => bob.client.joinRoom(room));
        await alice.until("the ban", () => alice.room(room).getMember(bob.id)?.membership === "ban");
        await alice.client.unban(room, bob.id);
        await alice.client.invite(room, bob.id);
        await bob.isIn(room, "invite");
    },

    async "sends, edits, reacts and redacts"(cast) {
        const alice = await cast.person("alice"), bob = await cast.person("bob");
        const room = await cast.roomOf(alice, [bob]);
        const first = await alice.says(room, "helo");
        await alice.sees(room, "her own message", byId(first));
        assert.equal(alice.timeline(room).filter((e) => e.getContent().body === "helo").length, 1, "the echo takes the place of the sent event");
        const received = await bob.reads(room, "helo");
        assert.equal(received.getId(), first);

        const edit = await alice.says(room, "* hello", {
            "m.new_content": { msgtype: "m.text", body: "hello" }, "m.relates_to": { rel_type: RelationType.Replace, event_id: first },
        });
        await bob.until("the edit", () => received.replacingEventId() === edit);
        assert.equal(received.getContent().body, "hello");
        const edits = await bob.client.relations(room, first, RelationType.Replace, EventType.RoomMessage);
        assert.deepEqual(edits.events.map((e) => e.getId()), [edit]);

        const { event_id: reaction } = await bob.client.sendEvent(room, EventType.Reaction, {
            "m.relates_to": { rel_type: RelationType.Annotation, event_id: first, key: "👍" },
        });
        const relations = alice.room(room).relations;
        await alice.until("the reaction", () => {
            const found = relations.getChildEventsForEvent(first, RelationType.Annotation, EventType.Reaction)?.getSortedAnnotationsByKey();
            return found?.[0]?.[0] === "👍" && [...found[0][1]].some(byId(reaction));
        });

        await alice.client.redactEvent(room, first, undefined, { reason: "typo" });
        await bob.until("the redaction", () => received.isRedacted());
        const gone = await bob.client.fetchRoomEvent(room, first);
        assert.deepEqual(gone.content, {});
        assert.equal(gone.unsigned.redacted_because.content.reason, "typo");
    },

    async "scrolls back to the beginning of a room"(cast) {
        const alice = await cast.person("alice");
        const room = await cast.roomOf(alice);
        const said = [];
        for (let n = 0; n < 25; n++) said.push(await alice.says(room, `message ${n}`));
        const late = await (await cast.anotherDeviceOf(alice)).start({ initialSyncLimit: 3 });
        assert.deepEqual(late.timeline(room).map((e) => e.getId()), said.slice(-3), "the initial sync obeys its limit");
        for (let page = 0; page < 20 && late.room(room).oldState.paginationToken !== null; page++) await late.client.scrollback(late.room(room), 10);
        const events = late.timeline(room);
        assert.equal(events[0].getType(), "m.room.create");
        assert.deepEqual(events.filter((e) => e.getType() === "m.room.message").map((e) => e.getId()), said);
    },

    async "opens a room in the middle of its history"(cast) {
        const alice = await cast.person("alice");
        const room = await cast.roomOf(alice);
        const said = [];
        for (let n = 0; n < 30; n++) said.push(await alice.says(room, `message ${n}`));
        const late = await (await cast.anotherDeviceOf(alice)).start({ initialSyncLimit: 1 });
        const timeline = await late.client.getEventTimeline(late.room(room).getUnfilteredTimelineSet(), said[15]);
        const messages = () => timeline.getEvents().filter((e) => e.getType() === "m.room.message").map((e) => e.getId());
        assert(messages().includes(said[15]));
        await late.client.paginateEventTimeline(timeline, { backwards: true, limit: 30 });
        await late.client.paginateEventTimeline(timeline, { backwards: false, limit: 30 });
        assert.deepEqual([...new Set(messages())], messages(), "no event comes twice");
        assert.deepEqual(messages().slice(0, 30), said.slice(0, messages().length));
        const found = await late.client.timestampToEvent(room, 0, sdk.Direction.Forward);
        assert.equal((await late.client.fetchRoomEvent(room, found.event_id)).type, "m.room.create");
    },

    async "uploads and shows a picture"(cast) {
        const alice = await cast.person("alice"), bob = await cast.person("bob");
        const room = await cast.roomOf(alice, [bob]);
        const picture = png(800, 600);
        const limits = await alice.client.getMediaConfig(true);
        assert(limits["m.upload.size"] > picture.length);
        const { content_uri: mxc } = await alice.client.uploadContent(new Blob([picture]), { type: "image/png", name: "fireplace.png" });
        await alice.client.sendImageMessage(room, mxc, { mimetype: "image/png", w: 800, h: 600, size: picture.length }, "fireplace.png");

        const { url } = (await bob.reads(room, "fireplace.png")).getContent();
        const http = (...size) => bob.client.mxcUrlToHttp(url, ...size, false, true, true);
        const full = await fetchAs(bob, http(undefined, undefined, undefined));
        assert.equal(full.headers.get("content-type"), "image/png");
        assert(picture.equals(Buffer.from(await full.arrayBuffer())), "the same bytes come back");
        for (const size of [[320, 240, "scale"], [96, 96, "crop"]]) {
            const thumbnail = await fetchAs(bob, http(...size));
            assert.equal(thumbnail.status, 200);
            assert.match(thumbnail.headers.get("content-type"), /^image\/(png|jpeg|webp)$/);
        }
        const anonymous = await fetch(http(undefined, undefined, undefined));
        assert.deepEqual([anonymous.status, (await anonymous.json()).errcode], [401, "M_MISSING_TOKEN"]);
    },

    async "typing and receipts reach the other"(cast) {
        const alice = await cast.person("alice"), bob = await cast.person("bob");
        const room = await cast.roomOf(alice, [bob]);
        await alice.says(room, "read this");
        const message = await bob.reads(room, "read this");
        const bobAtAlices = () => alice.room(room).getMember(bob.id);
        await bob.client.sendTyping(room, true, 20_000);
        await alice.until("bob typing", () => bobAtAlices().typing);
        await bob.client.sendTyping(room, false);
        await alice.until("bob not typing", () => !bobAtAlices().typing);
        await bob.client.sendReadReceipt(message);
        await alice.until("bob's receipt", () => alice.room(room).getEventReadUpTo(bob.id, true) === message.getId());
        await bob.client.setRoomReadMarkers(room, message.getId());
        await bob.until("the fully read marker", () => bob.room(room).getAccountData("m.fully_read")?.getContent().event_id === message.getId());
    },

    async "encrypted direct messages go both ways"(cast) {
        const alice = await cast.person("alice", { crypto: true }), bob = await cast.person("bob", { crypto: true });
        const room = await cast.roomOf(alice, [bob], { is_direct: true, initial_state: [MEGOLM] });
        assert.equal(bob.room(room).getDMInviter(), alice.id);
        const secret = await alice.says(room, "a secret");
        const read = await bob.reads(room, "a secret");
        assert(read.getId() === secret && read.isEncrypted());
        const onTheServer = await bob.client.fetchRoomEvent(room, secret);
        assert.equal(onTheServer.type, "m.room.encrypted");
        assert(!JSON.stringify(onTheServer).includes("a secret"));
        await bob.says(room, "another secret");
        assert((await alice.reads(room, "another secret")).isEncrypted());
    },

    async "cross-signs, backs up its keys and reads old secrets on a new device"(cast) {
        let recoveryKey;
        const cryptoCallbacks = {
            getSecretStorageKey: async ({ keys }) => [Object.keys(keys)[0], recoveryKey.privateKey],
            cacheSecretStorageKey() {},
        };
        const alice = await cast.person("alice", { crypto: true }, { cryptoCallbacks });
        const bob = await cast.person("bob", { crypto: true });
        const crypto = alice.client.getCrypto();
        await crypto.bootstrapCrossSigning({ authUploadDeviceSigningKeys: (upload) => withPassword(alice, upload) });
        recoveryKey = await crypto.createRecoveryKeyFromPassphrase();
        await crypto.bootstrapSecretStorage({
            createSecretStorageKey: async () => recoveryKey, setupNewKeyBackup: true, setupNewSecretStorage: true,
        });
        const backup = await crypto.checkKeyBackupAndEnable();
        assert(backup, "the backup exists");

        const room = await cast.roomOf(alice, [bob], { initial_state: [MEGOLM] });
        await alice.says(room, "an old secret");
        await bob.reads(room, "an old secret");
        const seen = await bob.client.getCrypto().getDeviceVerificationStatus(alice.id, alice.deviceId);
        assert(seen.signedByOwner, "others see that alice has signed her device");
        const onServer = () => alice.client.http.authedRequest(sdk.Method.Get, "/room_keys/version");
        await eventually("the room key in the backup", onServer, (info) => info.count >= 1);

        const phone = await cast.anotherDeviceOf(alice, { cryptoCallbacks });
        await phone.start({ crypto: true });
        const onPhone = phone.client.getCrypto();
        assert(await onPhone.userHasCrossSigningKeys(phone.id, true));
        await onPhone.bootstrapCrossSigning({});
        await onPhone.loadSessionBackupPrivateKeyFromSecretStorage();
        assert((await onPhone.checkKeyBackupAndEnable())?.trustInfo.trusted, "the backup is trusted");
        assert((await onPhone.restoreKeyBackup()).imported >= 1);
        await phone.reads(room, "an old secret");
        await eventually("the phone signed", () => onPhone.getDeviceVerificationStatus(phone.id, phone.deviceId), (s) => s?.signedByOwner);
    },

    async "a new name and avatar reach the other"(cast) {
        const alice = await cast.person("alice"), bob = await cast.person("bob");
        const room = await cast.roomOf(alice, [bob]);
        const { content_uri: avatar } = await alice.client.uploadContent(new Blob([png(32, 32)]), { type: "image/png" });
        await alice.client.setDisplayName("Alice of the Hearth");
        await alice.client.setAvatarUrl(avatar);
        await bob.until("the new name and avatar", () => {
            const member = bob.room(room).getMember(alice.id);
            return member.rawDisplayName === "Alice of the Hearth" && member.getMxcAvatarUrl() === avatar;
        });
        const profile = await bob.client.getProfileInfo(alice.id);
        assert.deepEqual([profile.displayname, profile.avatar_url], ["Alice of the Hearth", avatar]);
    },

    async "loads members lazily"(cast) {
        const alice = await cast.person("alice");
        const guests = [];
        for (const name of ["bob", "carol", "dora", "emil"]) guests.push(await cast.person(name));
        const room = await cast.roomOf(alice, guests, { name: "Crowd" });
        const [bob, , dora] = guests;
        await alice.says(room, "hello all");
        const lazy = await (await cast.anotherDeviceOf(dora)).start({ lazyLoadMembers: true, initialSyncLimit: 1 });
        const crowd = lazy.room(room);
        assert.equal(crowd.getJoinedMemberCount(), 5, "the summary counts all");
        assert(crowd.getMember(alice.id), "the sender of the message is known");
        assert.equal(crowd.getMember(bob.id), null, "who said nothing is not sent");
        await crowd.loadMembersIfNeeded();
        assert.deepEqual(crowd.getJoinedMembers().map((m) => m.userId).sort(), [alice, ...guests].map((p) => p.id).sort());
        await bob.says(room, "and to you");
        await lazy.reads(room, "and to you");
        assert.equal(crowd.getMember(bob.id).membership, "join");
    },

    async "talks in threads with receipts of their own"(cast) {
        const alice = await cast.person("alice"), bob = await cast.person("bob");
        const room = await cast.roomOf(alice, [bob]);
        await alice.says(room, "welcome");
        await bob.client.sendReadReceipt(await bob.reads(room, "welcome"));
        const root = await alice.says(room, "let us discuss");
        alice.room(room).createThread(root, await alice.sees(room, "the root", byId(root)), [], false); // as opening a thread does
        const reply = (body) => alice.client.sendMessage(room, root, { msgtype: "m.text", body });
        await reply("first reply");
        await reply("second reply");
        await alice.says(room, "elsewhere");
        const thread = await bob.until("the thread", () => {
            const found = bob.room(room)?.getThread(root);
            return found?.length === 2 && found.events.some((e) => e.getContent().body === "second reply") && found;
        });
        const { Total } = NotificationCountType;
        const unread = (p) => [p.room(room).getRoomUnreadNotificationCount(Total), p.room(room).getThreadUnreadNotificationCount(root, Total)];
        await bob.until("both counts", () => unread(bob).join() === "2,2");

        const last = thread.events.find((e) => e.getContent().body === "second reply");
        await bob.client.sendReadReceipt(last);
        const tablet = await (await cast.anotherDeviceOf(bob)).start();
        assert.deepEqual(unread(tablet), [2, 0], "the thread is read, the room is not");
        await bob.client.sendReadReceipt(bob.timeline(room).at(-1));
        await tablet.until("no count", () => unread(tablet).join() === "0,0");
        await alice.until("bob's receipt in the thread", () => alice.room(room).getThread(root)?.getEventReadUpTo(bob.id, true) === last.getId());

        const page = await bob.client.createThreadListMessagesRequest(room, null, 10);
        assert.deepEqual(page.chunk.map((e) => e.event_id), [root]);
        assert.equal(page.chunk[0].unsigned["m.relations"]["m.thread"].count, 2);
    },

    async "asks for the state of a room"(cast) {
        const alice = await cast.person("alice"), bob = await cast.person("bob");
        const room = await cast.roomOf(alice, [bob], { name: "Hearth" });
        const { event_id: topic } = await alice.client.setRoomTopic(room, "Fireside");
        const state = await bob.client.roomState(room);
        assert.deepEqual(state.find((e) => e.type === "m.room.topic").event_id, topic);
        assert.equal((await bob.client.getStateEvent(room, "m.room.name", "")).name, "Hearth");
        await refused("M_NOT_FOUND", () => bob.client.getStateEvent(room, "m.room.avatar", ""));
        await refused("M_FORBIDDEN", () => bob.client.setRoomTopic(room, "Bob was here"));
        const { event_id: custom } = await alice.client.sendStateEvent(room, "org.hearth.test", { warm: true }, "stove");
        await bob.until("the custom state", () => bob.room(room).currentState.getStateEvents("org.hearth.test", "stove")?.getId() === custom);
        const { chunk } = await bob.client.members(room, "join");
        assert.deepEqual(chunk.map((e) => e.state_key).sort(), [alice.id, bob.id].sort());
        await alice.client.setPowerLevel(room, bob.id, 50);
        await bob.until("more power", () => bob.room(room).getMember(bob.id).powerLevel === 50);
        await bob.client.setRoomTopic(room, "Bob was here");
    },

    async "syncs with a filter"(cast) {
        const alice = await cast.person("alice");
        const room = await cast.roomOf(alice);
        await alice.says(room, "one");
        await alice.client.setRoomTopic(room, "not wanted");
        await alice.says(room, "two");
        const device = await cast.anotherDeviceOf(alice);
        const filter = Filter.fromJson(alice.id, "unsent", {
            presence: { types: [] }, room: { timeline: { types: ["m.room.message"], limit: 10 }, state: { types: ["m.room.create"] } },
        });
        await device.start({ filter });
        assert.deepEqual(device.timeline(room).map((e) => e.getContent().body), ["one", "two"]);
        assert.equal(device.room(room).currentState.getStateEvents("m.room.topic", ""), null);
        await alice.client.setRoomTopic(room, "still not wanted");
        await alice.says(room, "three");
        await device.reads(room, "three");
        assert.deepEqual(device.timeline(room).map((e) => e.getContent().body), ["one", "two", "three"]);
        const stored = await device.client.createFilter({ room: { timeline: { limit: 7 } } });
        assert.equal((await device.client.getFilter(alice.id, stored.filterId, false)).getDefinition().room.timeline.limit, 7);
    },

    async "keeps account data"(cast) {
        const alice = await cast.person("alice");
        const room = await cast.roomOf(alice);
        const laptop = await (await cast.anotherDeviceOf(alice)).start();
        await alice.client.setAccountData("org.hearth.colour", { colour: "amber" });
        await laptop.until("the account data", () => laptop.client.getAccountData("org.hearth.colour")?.getContent().colour === "amber");
        assert.deepEqual(await laptop.client.getAccountDataFromServer("org.hearth.colour"), { colour: "amber" });
        assert.equal(await laptop.client.getAccountDataFromServer("org.hearth.nothing"), null);
        await alice.client.setRoomAccountData(room, "org.hearth.note", { note: "warm" });
        await laptop.until("the room's account data", () => laptop.room(room).getAccountData("org.hearth.note")?.getContent().note === "warm");
    },

    async "tags a room"(cast) {
        const alice = await cast.person("alice");
        const room = await cast.roomOf(alice);
        await alice.client.setRoomTag(room, "m.favourite", { order: 0.25 });
        await alice.until("the tag", () => alice.room(room).tags["m.favourite"]?.order === 0.25);
        assert.deepEqual((await alice.client.getRoomTags(room)).tags, { "m.favourite": { order: 0.25 } });
        await alice.client.deleteRoomTag(room, "m.favourite");
        await alice.until("no tag", () => !alice.room(room).tags["m.favourite"]);
    },

    async "changes push rules, and they count"(cast) {
        const alice = await cast.person("alice"), bob = await cast.person("bob");
        const room = await cast.roomOf(alice, [bob]);
        const { global } = await alice.client.getPushRules();
        assert.equal(global.override[0].rule_id, ".m.rule.master");
        assert.equal(global.override[0].enabled, false);
        await alice.client.addPushRule("global", PushRuleKind.ContentSpecific, "stove", {
            pattern: "stove", actions: ["notify", { set_tweak: "highlight" }],
        });
        await alice.until("the rule by sync", () => alice.client.pushRules.global.content.some((r) => r.rule_id === "stove"));
        const counts = () => ["total", "highlight"].map((kind) => alice.room(room).getRoomUnreadNotificationCount(kind)).join();
        await bob.says(room, "the stove is warm");
        await alice.until("a highlight", () => counts() === "1,1");
        await alice.client.setPushRuleEnabled("global", PushRuleKind.ContentSpecific, "stove", false);
        await bob.says(room, "no stove any more");
        await alice.until("a second notification without highlight", () => counts() === "2,1");
        await alice.client.sendReadReceipt(await alice.reads(room, "no stove any more"));
        await alice.until("nothing unread", () => counts() === "0,0");
        await alice.client.setRoomMutePushRule("global", room, true);
        await alice.until("the mute by sync", () => alice.client.pushRules.global.room.some((r) => r.rule_id === room));
        await bob.says(room, "are you there?");
        await alice.reads(room, "are you there?");
        assert.equal(counts(), "0,0", "a muted room does not count");
        await bob.says(room, "you, alice", { "m.mentions": { user_ids: [alice.id] } });
        await alice.until("a mention, which rings through", () => counts() === "1,1");
        await alice.client.deletePushRule("global", PushRuleKind.ContentSpecific, "stove");
        assert(!(await alice.client.getPushRules()).global.content.some((r) => r.rule_id === "stove"));
    },

    async "upgrades a room"(cast) {
        const alice = await cast.person("alice"), bob = await cast.person("bob");
        const { default: newest } = (await alice.client.getCapabilities())["m.room_versions"];
        const alias = unique("upgraded");
        const room = await cast.roomOf(alice, [bob], { name: "Hearth", room_version: "10", room_alias_name: alias });
        const { replacement_room: next } = await alice.client.upgradeRoom(room, newest);
        await bob.until("the tombstone", () =>
            bob.room(room).currentState.getStateEvents("m.room.tombstone", "")?.getContent().replacement_room === next);
        await refused("M_FORBIDDEN", () => bob.says(room, "still here"));
        await alice.isIn(next);
        const state = alice.room(next).currentState;
        assert.equal(state.getStateEvents("m.room.create", "").getContent().predecessor.room_id, room);
        assert.equal(state.getStateEvents("m.room.create", "").getContent().room_version, newest);
        assert.equal(state.getStateEvents("m.room.name", "").getContent().name, "Hearth");
        const found = await alice.client.getRoomIdForAlias(`#${alias}:${alice.client.getDomain()}`);
        assert.equal(found.room_id, next, "the alias moves along");
    },

    async "knocks and is let in"(cast) {
        const alice = await cast.person("alice"), bob = await cast.person("bob");
        const knocking = { type: "m.room.join_rules", state_key: "", content: { join_rule: "knock" } };
        const room = await cast.roomOf(alice, [], { name: "Behind the door", initial_state: [knocking] });
        await refused("M_FORBIDDEN", () => bob.client.joinRoom(room));
        await bob.client.knockRoom(room, { reason: "it is cold outside" });
        await bob.isIn(room, "knock");
        assert.equal(bob.room(room).name, "Behind the door");
        await alice.until("the knock", () => alice.room(room).getMember(bob.id)?.membership === "knock");
        assert.equal(alice.room(room).getMember(bob.id).events.member.getContent().reason, "it is cold outside");
        await alice.client.invite(room, bob.id);
        await bob.isIn(room, "invite");
        await bob.client.joinRoom(room);
        await bob.isIn(room);
    },

    async "finds a public room and joins it by its alias"(cast) {
        const alice = await cast.person("alice"), bob = await cast.person("bob");
        const name = unique("fireside"), second = `#${name}-too:${alice.client.getDomain()}`;
        const room = await cast.roomOf(alice, [], {
            preset: sdk.Preset.PublicChat, visibility: sdk.Visibility.Public, name, topic: "Come in", room_alias_name: name,
        });
        const search = () => bob.client.publicRooms({ limit: 10, filter: { generic_search_term: name } });
        const { chunk: [listed] } = await eventually("the room in the directory", search, (page) => page.chunk.length === 1);
        assert.deepEqual([listed.room_id, listed.name, listed.topic, listed.num_joined_members], [room, name, "Come in", 1]);
        assert.equal(listed.canonical_alias, `#${name}:${alice.client.getDomain()}`);
        await bob.client.joinRoom(listed.canonical_alias);
        await bob.isIn(room);
        assert.equal(bob.room(room).getCanonicalAlias(), listed.canonical_alias);

        await alice.client.createAlias(second, room);
        assert.equal((await bob.client.getRoomIdForAlias(second)).room_id, room);
        assert.deepEqual((await bob.client.getLocalAliases(room)).aliases.sort(), [listed.canonical_alias, second].sort());
        await alice.client.deleteAlias(second);
        await refused("M_NOT_FOUND", () => bob.client.getRoomIdForAlias(second));
        await alice.client.setRoomDirectoryVisibility(room, sdk.Visibility.Private);
        await eventually("the room to leave the directory", search, (page) => page.chunk.length === 0);
    },

    async "walks through a space"(cast) {
        const alice = await cast.person("alice");
        const child = await cast.roomOf(alice, [], { name: "Child" });
        const space = await cast.roomOf(alice, [], { name: "Space", creation_content: { type: "m.space" } });
        await alice.client.sendStateEvent(space, "m.space.child", { via: [alice.client.getDomain()] }, child);
        const { rooms } = await alice.client.getRoomHierarchy(space, 10);
        assert.deepEqual(rooms.map((r) => [r.room_id, r.name]), [[space, "Space"], [child, "Child"]]);
        assert.equal(rooms[0].children_state[0].state_key, child);
    },

    async "finds a message by its words"(cast) {
        const alice = await cast.person("alice");
        const room = await cast.roomOf(alice);
        const wanted = await alice.says(room, "the chimney needs sweeping");
        await alice.says(room, "the cellar is dry");
        const search = () => alice.client.searchRoomEvents({ term: "chimney", filter: { rooms: [room] } });
        const { results } = await eventually("the message", search, (r) => r.count > 0);
        assert.deepEqual(results.map((r) => r.context.getEvent().getId()), [wanted]);
    },

    async "sees its rooms by sliding sync"(cast) {
        const alice = await cast.person("alice"), bob = await cast.person("bob");
        const quiet = await cast.roomOf(alice, [], { name: "Quiet" });
        const busy = await cast.roomOf(alice, [bob], { name: "Busy" });
        await bob.says(busy, "before");
        await alice.reads(busy, "before");
        const phone = await cast.anotherDeviceOf(alice);
        const want = { required_state: [["m.room.name", ""], ["m.room.member", "$ME"]], timeline_limit: 5 };
        const slidingSync = new SlidingSync(phone.base, new Map([["all", { ranges: [[0, 9]], ...want }]]), want, phone.client, 5000);
        await phone.start({ slidingSync });
        await phone.until("both rooms", () => phone.room(quiet)?.name === "Quiet" && phone.room(busy)?.name === "Busy");
        assert.equal(slidingSync.getListData("all").joinedCount, 2);
        await phone.reads(busy, "before");
        await bob.says(busy, "after");
        await phone.reads(busy, "after");
    },

    async "logs out, and removes another device"(cast) {
        const alice = await cast.newcomer("alice"), lost = await cast.anotherDeviceOf(alice);
        assert.deepEqual((await alice.client.getDevices()).devices.map((d) => d.device_id).sort(), [alice.deviceId, lost.deviceId].sort());
        await withPassword(alice, (auth) => alice.client.deleteMultipleDevices([lost.deviceId], auth ?? undefined));
        await refused("M_UNKNOWN_TOKEN", () => lost.client.whoami());
        const session = { user_id: alice.id, device_id: alice.deviceId, access_token: alice.client.getAccessToken() };
        await alice.client.logout(true);
        const ghost = new Person(alice.base, session);
        assert.equal((await refused("M_UNKNOWN_TOKEN", () => ghost.client.whoami())).httpStatus, 401);
    },
};

await tell("sdk", stories, process.argv[2].replace(/\/$/, ""), process.argv.slice(3).join(" "));
