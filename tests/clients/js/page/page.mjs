// A client for the browser, as small as can be, on matrix-js-sdk: what browser_test.mjs clicks on.

import * as sdk from "matrix-js-sdk";

const $ = (selector) => document.querySelector(selector);
const pictures = new Map(); // mxc URI and size -> promise of an object URL, so that redrawing does not fetch again
let client, openRoomId;

/** Shows what goes wrong instead of losing it. */
function attempt(action) {
    return async (event) => {
        event?.preventDefault();
        $("#error").textContent = "";
        try {
            await action(event);
        } catch (error) {
            $("#error").textContent = error.errcode ?? String(error);
        }
    };
}

async function enter({ server, userId, deviceId, accessToken }) {
    client = sdk.createClient({ baseUrl: server, userId, deviceId, accessToken, timelineSupport: true });
    await client.initRustCrypto();
    for (const news of [sdk.ClientEvent.Sync, sdk.ClientEvent.Room, sdk.RoomEvent.Timeline, sdk.RoomEvent.MyMembership, sdk.MatrixEventEvent.Decrypted]) {
        client.on(news, draw);
    }
    await client.startClient({ lazyLoadMembers: true, threadSupport: true, pollTimeout: 5000 });
    $("#me").textContent = userId;
    document.body.classList.add("in");
}

/** The object URL of a picture, which only an authorised request can fetch. */
async function picture(mxc, ...size) {
    const url = client.mxcUrlToHttp(mxc, ...(size.length ? size : [undefined, undefined, undefined]), false, true, true);
    const response = await fetch(url, { headers: { Authorization: `Bearer ${client.getAccessToken()}` } });
    if (!response.ok) throw new Error(`${response.status} for ${url}`);
    return URL.createObjectURL(await response.blob());
}

function image(kind, mxc, ...size) {
    const key = [mxc, ...size].join();
    if (!pictures.has(key)) pictures.set(key, picture(mxc, ...size));
    const img = Object.assign(document.createElement("img"), { className: kind });
    pictures.get(key).then((url) => (img.src = url), (error) => ($("#error").textContent = String(error)));
    return img;
}

function draw() {
    $("#rooms").replaceChildren(...client.getRooms().map((room) => {
        const invited = room.getMyMembership() === "invite";
        const button = document.createElement("button");
        button.textContent = invited ? `Join ${room.name}` : room.name;
        button.classList.toggle("open", room.roomId === openRoomId);
        button.onclick = attempt(async () => {
            if (invited) await client.joinRoom(room.roomId);
            open(room.roomId);
        });
        return button;
    }));
    const events = client.getRoom(openRoomId)?.getLiveTimeline().getEvents() ?? [];
    $("#timeline").replaceChildren(...events.filter((e) => e.getType() === "m.room.message").map(line));
}

function line(event) {
    const { msgtype, body, url } = event.getContent();
    const row = document.createElement("div");
    row.className = "message";
    row.classList.toggle("encrypted", event.isEncrypted());
    row.append(Object.assign(document.createElement("span"), { className: "sender", textContent: event.getSender() }));
    row.append(Object.assign(document.createElement("span"), { className: "body", textContent: body }));
    if (msgtype === "m.image") row.append(image("thumbnail", url, 320, 240, "scale"), image("full", url));
    return row;
}

function open(roomId) {
    openRoomId = roomId;
    draw();
}

$("#login").onsubmit = attempt(async () => {
    const { server, user, password } = Object.fromEntries(new FormData($("#login")));
    const session = await sdk.createClient({ baseUrl: server }).loginRequest({
        type: "m.login.password", identifier: { type: "m.id.user", user }, password, initial_device_display_name: "A small Matrix client",
    });
    const saved = { server, userId: session.user_id, deviceId: session.device_id, accessToken: session.access_token };
    localStorage.setItem("session", JSON.stringify(saved));
    await enter(saved);
});

$("#logout").onclick = attempt(async () => {
    await client.logout(true);
    localStorage.removeItem("session");
    document.body.classList.remove("in");
});

$("#create").onsubmit = attempt(async () => {
    const { name, invite, encrypted } = Object.fromEntries(new FormData($("#create")));
    const encryption = { type: "m.room.encryption", state_key: "", content: { algorithm: "m.megolm.v1.aes-sha2" } };
    const { room_id } = await client.createRoom({
        name, preset: sdk.Preset.PrivateChat, invite: invite ? [invite] : [], initial_state: encrypted ? [encryption] : [],
    });
    open(room_id);
});

$("#say").onsubmit = attempt(async () => {
    const text = $("#say").text.value;
    $("#say").text.value = "";
    await client.sendTextMessage(openRoomId, text);
});

$("#say").picture.onchange = attempt(async ({ target: { files: [file] } }) => {
    const { content_uri: url } = await client.uploadContent(file, { type: file.type, name: file.name });
    await client.sendImageMessage(openRoomId, url, { mimetype: file.type, size: file.size }, file.name);
});

const saved = localStorage.getItem("session");
if (saved) attempt(() => enter(JSON.parse(saved)))();
