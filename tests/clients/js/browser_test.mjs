// Stories of people who use the server in Chromium, from a page of another origin, so that CORS is really needed.
//
// usage: node browser_test.mjs BASE_URL [PART_OF_A_STORY_NAME]
//
// The folder for the screenshot is $SCREENSHOTS (default: the current folder); the browser is $CHROMIUM.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { chromium } from "playwright-core";
import { Cast, LIMIT_MS, PASSWORD, tell } from "./people.mjs";
import { png } from "./png.mjs";

const HERE = path.dirname(fileURLToPath(import.meta.url));
const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync"];
const base = process.argv[2].replace(/\/$/, "");

/** Bundles the page and serves it; returns its URL. */
async function servePage() {
    const bundle = await build({
        entryPoints: [path.join(HERE, "page/page.mjs")], bundle: true, write: false, format: "esm", target: "chrome120",
        define: { global: "globalThis" }, logLevel: "error",
    });
    const wasm = fileURLToPath(import.meta.resolve("@matrix-org/matrix-sdk-crypto-wasm")).replace(/[^/]*$/, "pkg/matrix_sdk_crypto_wasm_bg.wasm");
    const files = {
        "/": ["text/html", await readFile(path.join(HERE, "page/index.html"))],
        "/page.js": ["text/javascript", bundle.outputFiles[0].contents],
        "/pkg/matrix_sdk_crypto_wasm_bg.wasm": ["application/wasm", await readFile(wasm)],
    };
    const server = createServer((request, response) => {
        const [type, body] = files[request.url] ?? [];
        response.writeHead(body ? 200 : 404, { "Content-Type": type ?? "text/plain" }).end(body);
    });
    await new Promise((resolve) => server.listen(0, "localhost", resolve));
    return `http://localhost:${server.address().port}/`;
}

/** One person in front of a browser of their own. */
class Visitor {
    constructor(page, id) {
        this.page = page;
        this.id = id;
        this.log = [];
        page.on("console", (message) => this.log.push(`${message.type()}: ${message.text()}`));
        page.on("pageerror", (error) => this.log.push(`pageerror: ${error}`));
        page.on("requestfailed", (request) => this.log.push(`failed: ${request.method()} ${request.url()} ${request.failure()?.errorText}`));
    }

    async logIn(password = PASSWORD) {
        for (const [field, value] of Object.entries({ server: base, user: this.id, password })) await this.page.fill(`#login [name=${field}]`, value);
        await this.page.click("#login button");
    }

    async creates(name, invite, { encrypted = false } = {}) {
        await this.page.fill("#create [name=name]", name);
        await this.page.fill("#create [name=invite]", invite.id);
        await this.page.setChecked("#create [name=encrypted]", encrypted);
        await this.page.click("#create button");
        await this.page.waitForSelector(`#rooms .open:text-is("${name}")`);
    }

    async joins(name) {
        await this.page.click(`#rooms button:text-is("Join ${name}")`);
        await this.page.waitForSelector(`#rooms .open:text-is("${name}")`);
    }

    async says(text) {
        await this.page.fill("#say [name=text]", text);
        await this.page.click("#say button");
    }

    /** Waits for a message by this person and returns its row. */
    reads(text, from, mark = "") {
        return this.page.waitForSelector(`.message${mark}:has(.sender:text-is("${from.id}")):has(.body:text-is("${text}"))`);
    }

    /** The size of a picture of the row, once the browser has decoded it. */
    async pictureSize(kind) {
        const size = (selector) => {
            const img = document.querySelector(selector);
            return img?.complete && img.naturalWidth > 0 ? [img.naturalWidth, img.naturalHeight] : null;
        };
        return (await this.page.waitForFunction(size, `.message img.${kind}`)).jsonValue();
    }

    error(text) {
        return this.page.waitForSelector(`#error:text-is("${text}")`);
    }
}

/** Visitors with a browser profile each; their pages' complaints are printed when they leave after a failure. */
class Audience extends Cast {
    constructor(browser, pageUrl) {
        super(base);
        this.browser = browser;
        this.pageUrl = pageUrl;
        this.visitors = [];
    }

    async visitor(name) {
        const account = await this.newcomer(name);
        const context = await this.browser.newContext();
        context.setDefaultTimeout(LIMIT_MS);
        const visitor = new Visitor(await context.newPage(), account.id);
        this.visitors.push(visitor);
        await visitor.page.goto(this.pageUrl);
        return visitor;
    }

    async loggedIn(name) {
        const visitor = await this.visitor(name);
        await visitor.logIn();
        await visitor.page.waitForSelector(`#me:text-is("${visitor.id}")`);
        return visitor;
    }

    async goHome(failed) {
        for (const { id, log, page } of this.visitors) {
            if (failed) console.log(`the browser of ${id}:\n  ${await page.textContent("#error")}\n  ${log.slice(-20).join("\n  ")}`);
            await page.context().close();
        }
        super.goHome();
    }
}

const stories = {
    async "a wrong password is told across origins"(cast) {
        const alice = await cast.visitor("alice");
        await alice.logIn("wrong password");
        await alice.error("M_FORBIDDEN");
        await alice.logIn();
        await alice.page.waitForSelector(`#me:text-is("${alice.id}")`);
    },

    async "two people chat"(cast) {
        const alice = await cast.loggedIn("alice"), bob = await cast.loggedIn("bob");
        await alice.creates("Fireside", bob);
        await bob.joins("Fireside");
        await alice.says("hello bob");
        await bob.reads("hello bob", alice);
        await bob.says("hello alice");
        await alice.reads("hello alice", bob);
        assert.equal(await alice.page.locator(".message").count(), 2, "each message is shown once");
    },

    async "a picture is uploaded and shown through authenticated media"(cast) {
        const alice = await cast.loggedIn("alice"), bob = await cast.loggedIn("bob");
        await alice.creates("Gallery", bob);
        await bob.joins("Gallery");
        await alice.page.setInputFiles("#say [name=picture]", { name: "fireplace.png", mimeType: "image/png", buffer: png(800, 600) });
        await bob.reads("fireplace.png", alice);
        assert.deepEqual(await bob.pictureSize("full"), [800, 600]);
        assert.deepEqual(await bob.pictureSize("thumbnail"), [320, 240]);
        await bob.page.screenshot({ path: path.join(process.env.SCREENSHOTS ?? ".", "picture-in-chromium.png") });
    },

    async "an encrypted conversation survives a reload"(cast) {
        const alice = await cast.loggedIn("alice"), bob = await cast.loggedIn("bob");
        await alice.creates("Secrets", bob, { encrypted: true });
        await bob.joins("Secrets");
        await alice.says("a secret");
        await bob.reads("a secret", alice, ".encrypted");
        await bob.page.reload();
        await bob.page.click('#rooms button:text-is("Secrets")');
        await bob.reads("a secret", alice, ".encrypted");
        await bob.says("another secret");
        await alice.reads("another secret", bob, ".encrypted");
    },

    async "logs out"(cast) {
        const alice = await cast.loggedIn("alice");
        const token = await alice.page.evaluate(() => JSON.parse(localStorage.getItem("session")).accessToken);
        await alice.page.click("#logout");
        await alice.page.waitForSelector("#login:visible");
        const answer = await fetch(`${base}/_matrix/client/v3/account/whoami`, { headers: { Authorization: `Bearer ${token}` } });
        assert.deepEqual([answer.status, (await answer.json()).errcode], [401, "M_UNKNOWN_TOKEN"]);
    },
};

const pageUrl = await servePage();
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: FLAGS });
await tell("browser", stories, base, process.argv.slice(3).join(" "), () => new Audience(browser, pageUrl), () => browser.close());
