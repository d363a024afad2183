// The dashboard of a daemon, as operators and support people use it.

import { after, before, test } from "node:test";
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Browser, PATIENCE_MS, Program, looks, picture, startDemo, walksByKeyboard } from "./world.js";

let browser;
let demo;

before(async () => {
  browser = await Browser.start();
});

after(async () => {
  await browser.stop();
});

function withDemo(name, body) {
  test(name, { timeout: PATIENCE_MS * 6 }, async () => {
    demo = await startDemo();
    try {
      await body(await browser.open(demo.dashboards.eu));
    } catch (error) {
      for (const page of browser.context.pages()) await picture(page, `failed-${name.replaceAll(/\W+/g, "-").slice(0, 40)}`);
      throw error;
    } finally {
      for (const page of browser.context.pages().slice(1)) await page.close();
      await demo.program.stop();
    }
  });
}

const send = async (method, path, body) => {
  const response = await fetch(path, { method, headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
  assert.ok(response.ok, `${path}: ${response.status} ${await response.text()}`);
};
const space = async () => (await (await fetch(`${demo.dashboards.eu}v1/spaces`)).json()).spaces[0].id;
const setLink = (link, condition) => send("POST", `${demo.url}demo/links/${link}`, { condition });
const rename = async (region, value) => send("PUT", `${demo.dashboards[region]}v1/spaces/${await space()}/register/profiles/ada`, { value });
const view = (page, name) => page.locator("#tabs").getByRole("link", { name }).click();

/** Two names, written apart. */
async function disagree() {
  for (const link of ["eu/us", "us/ap"]) await setLink(link, "cut");
  await rename("eu", "Ada King");
  await rename("us", "Countess of Lovelace");
  for (const link of ["eu/us", "us/ap"]) await setLink(link, "live");
}

withDemo("conflicts appear by themselves, and one click decides for all", async (page) => {
  const other = await browser.open(demo.dashboards.us);
  await view(page, /Conflicts/);
  await page.waitForSelector("#conflicts .empty");
  await disagree();
  await page.waitForSelector("#conflicts .version");
  await other.waitForSelector("#tabs .badge");
  assert.deepEqual((await page.locator("#conflicts .value").allTextContents()).sort(), ["Ada King", "Countess of Lovelace"]);
  const labels = await page.locator("#conflicts .version .label").allTextContents();
  assert.ok(labels.some((label) => label.startsWith("eu,")) && labels.some((label) => label.startsWith("us,")), labels.join());
  await looks(page, "dashboard-conflicts");
  await page.locator(".version", { hasText: "Ada King" }).getByRole("button").click();
  await page.waitForSelector("#conflicts .empty");
  await other.waitForSelector("#tabs .badge", { state: "detached" });

  // What was replaced is in the journal of both, and comes back from there.
  await view(other, /Journal/);
  await other.waitForFunction(() => document.querySelectorAll("#journal .entry").length === 2);
  await looks(other, "dashboard-journal");
  await other.getByRole("button", { name: "Restore Countess of Lovelace" }).click();
  await page.goto(`${demo.dashboards.eu}#${await space()}/objects/register/profiles/ada`);
  await page.waitForFunction(() => document.querySelector("#object .big")?.textContent === "Countess of Lovelace");
});

withDemo("what waits is said, with the reason", async (page) => {
  await page.waitForFunction(() => document.getElementById("waiting").textContent.startsWith("Nothing waits"));
  await looks(page, "dashboard-overview");
  for (const link of ["eu/us", "us/ap"]) await setLink(link, "cut");
  await rename("eu", "Ada King");
  await page.waitForFunction(() => /us lacks 1 change set of what is here/.test(document.getElementById("waiting").textContent));
  // Once the connection is given up, that is said instead.
  await page.waitForFunction(() => /us is not connected/.test(document.getElementById("waiting").textContent));
  await looks(page, "dashboard-waiting");
  for (const link of ["eu/us", "us/ap"]) await setLink(link, "live");
  await page.waitForFunction(() => document.getElementById("waiting").textContent.startsWith("Nothing waits"));
});

withDemo("objects are found, and documents have a history", async (page) => {
  const id = await space();
  const document = `${demo.dashboards.us}v1/spaces/${id}/document/notes/shared`;
  await send("POST", document, { op: "splice", pointer: "/text", position: 0, delete: 5, insert: "All" });
  await view(page, /Objects/);
  await page.locator("#keys").getByRole("link", { name: "shared" }).click();
  await page.waitForFunction(() => window.document.querySelector("#object pre")?.textContent.startsWith("All regions"));
  assert.equal(await page.locator("#history button").count(), 2);
  await page.locator("#history button").nth(1).click();
  await page.waitForFunction(() => window.document.querySelector("#object pre").textContent.startsWith("Three regions"));
  await page.locator("#history button").nth(0).click();
  await page.waitForFunction(() => window.document.querySelector(".patches")?.textContent.includes("5 removed"));
  await looks(page, "dashboard-history");
  await page.locator("#history button").nth(1).click();
  await page.waitForFunction(() => window.document.querySelector("#object pre").textContent.startsWith("Three regions"));
  await page.getByRole("button", { name: "Restore this version" }).click();
  await page.waitForFunction(() => window.document.querySelectorAll("#history button").length === 3);
  await page.waitForFunction(() => window.document.querySelector("#object pre").textContent.startsWith("Three regions"));
  await page.selectOption("#kind", "bounded-counter");
  await page.locator("#keys").getByRole("link", { name: "apples" }).click();
  await page.waitForFunction(() => window.document.querySelector("#object .big")?.textContent === "12");
  await page.selectOption("#kind", "set");
  await page.waitForFunction(() => [...window.document.querySelectorAll("#collection option")].some((option) => option.value === "tags"));
  await page.selectOption("#collection", "tags");
  await page.locator("#keys").getByRole("link", { name: "post" }).click();
  await page.waitForFunction(() => window.document.querySelector("#object .chip")?.textContent === "crdt");
});

withDemo("everything is reached by keyboard", async (page) => {
  await disagree();
  await view(page, /Conflicts/);
  await page.waitForSelector("#conflicts .version");
  await walksByKeyboard(page);
});

test("where a token is needed, one is asked for", { timeout: PATIENCE_MS * 2 }, async () => {
  const directory = mkdtempSync(join(tmpdir(), "comity-token-"));
  const lines = execFileSync(process.env.COMITY_PROGRAM, ["token", "desk", "--scope", "admin"], { encoding: "utf8" });
  const token = lines.match(/comity_[a-z0-9]+/)[0];
  writeFileSync(join(directory, "comity.toml"), `data_dir = "${directory}/data"\n[http]\nlisten = ["127.0.0.1:0"]\nlocal_scope = "none"\n${lines}`);
  const program = new Program(["serve", "--config", join(directory, "comity.toml")]);
  try {
    const [, at] = await program.said(/http=\[(127[^\]]+)\]/);
    const page = await browser.open(`http://${at}/`);
    await page.getByRole("heading", { name: "Present a token" }).waitFor();
    await picture(page, "dashboard-token");
    await page.fill("input[type=password]", "comity_wrong");
    await page.keyboard.press("Enter");
    // The form is a fresh one once the answer is there.
    await page.waitForFunction(() => document.querySelector("input[type=password]")?.value === "");
    await page.fill("input[type=password]", token);
    await page.keyboard.press("Enter");
    await page.getByRole("heading", { name: "No space yet" }).waitFor();
    const made = await fetch(`http://${at}/v1/spaces`, { method: "POST", headers: { authorization: `Bearer ${token}`, "content-type": "application/json" }, body: `{"name": "notes"}` });
    assert.equal(made.status, 201);
    await page.reload();
    await page.waitForSelector("#waiting");
    await page.close();
  } finally {
    await program.stop();
    rmSync(directory, { recursive: true, force: true });
  }
});
