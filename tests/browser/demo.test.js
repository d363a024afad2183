// The demo's page, as visitors use it: write, cut, diverge, heal, resolve.

import { after, before, test } from "node:test";
import assert from "node:assert/strict";
import { Browser, PATIENCE_MS, looks, picture, startDemo, walksByKeyboard } from "./world.js";

const REGIONS = ["eu", "us", "ap"];
let demo;
let browser;

before(async () => {
  browser = await Browser.start();
});

after(async () => {
  await browser.stop();
});

/** One demo and one page of it for each test. */
function withDemo(name, body) {
  test(name, { timeout: PATIENCE_MS * 6 }, async () => {
    demo = await startDemo();
    try {
      await body(await browser.open(demo.url));
    } catch (error) {
      for (const page of browser.context.pages()) await picture(page, `failed-${name.replaceAll(/\W+/g, "-").slice(0, 40)}`);
      throw error;
    } finally {
      for (const page of browser.context.pages().slice(1)) await page.close();
      await demo.program.stop();
    }
  });
}

const field = (page, region) => page.locator(`#note-${region}`);
const shows = (page, id, text) => page.waitForFunction(([at, wanted]) => document.getElementById(at).textContent.trim() === wanted, [id, String(text)]);
const noteHas = (page, region, text) => page.waitForFunction(([at, wanted]) => document.getElementById(`note-${at}`).value.includes(wanted), [region, text]);
const verdict = (page, kind) => page.waitForSelector(`#verdict.${kind}`);
const setLink = async (page, name, condition) => {
  const isCut = condition === "cut";
  const button = page.locator(`#map-${name}`);
  await button.click();
  await page.waitForFunction(([at, cut]) => (document.getElementById(`map-${at}`).dataset.condition === "cut") === cut, [name, isCut]);
};
const cutOff = async (page) => {
  await setLink(page, "eu-us", "cut");
  await setLink(page, "us-ap", "cut");
};
const heal = async (page) => {
  await setLink(page, "eu-us", "live");
  await setLink(page, "us-ap", "live");
  await verdict(page, "good");
};
const enter = async (page, id, text) => {
  await page.fill(`#${id}`, text);
  await page.press(`#${id}`, "Enter");
  await page.waitForFunction((at) => document.getElementById(at).value === "", id);
};

/** Presses and waits for the answer. */
async function sell(page, region) {
  const answered = page.waitForResponse((response) => response.url().includes(`/${region}/v1/`) && response.url().includes("bounded-counter"));
  await page.click(`#sell-${region}`);
  return (await answered).status();
}

withDemo("regions that are cut off write on, and have the same once they meet", async (page) => {
  await looks(page, "demo-1-start");
  const other = await browser.open(demo.url);
  await page.evaluate(() => {
    window.least = 99;
    new MutationObserver(() => {
      for (const node of document.querySelectorAll("[id^=stock-]")) window.least = Math.min(window.least, Number(node.textContent));
    }).observe(document.body, { subtree: true, childList: true, characterData: true });
  });
  await cutOff(page);

  // Two people type at the same time, each where the other's words do not arrive.
  await Promise.all([[page, "eu", " Guten Morgen!"], [other, "us", " Good morning!"]].map(async ([at, region, words]) => {
    await field(at, region).focus();
    await at.keyboard.press("Control+End");
    await at.keyboard.type(words);
  }));
  for (const at of [page, other]) {
    await noteHas(at, "eu", "Guten Morgen!");
    await noteHas(at, "us", "Good morning!");
  }
  await noteHas(page, "ap", "Guten Morgen!");
  assert.ok(!(await field(page, "us").inputValue()).includes("Guten"), "what is cut off arrives");

  for (const region of ["eu", "eu", "us"]) await page.click(`#like-${region}`);
  await shows(page, "likes-eu", 5);
  await shows(page, "likes-us", 4);
  await enter(page, "tag-us", "america");
  await enter(page, "name-eu", "Ada King");
  await enter(page, "name-us", "Countess of Lovelace");

  // America sells what it may and no more. Europe gets what Asia may sell, which it can reach.
  for (let sold = 0; sold < 4; sold += 1) assert.equal(await sell(page, "us"), 200);
  assert.equal(await sell(page, "us"), 409);
  await page.waitForFunction(() => document.getElementById("toast").textContent.startsWith("us refuses"));
  for (let sold = 0; sold < 8; sold += 1) assert.equal(await sell(page, "eu"), 200);
  assert.equal(await sell(page, "eu"), 409);
  await shows(page, "stock-us", 8);
  await shows(page, "stock-eu", 4);
  await shows(page, "stock-ap", 4);
  await verdict(page, "wait");
  await looks(page, "demo-2-apart");

  await heal(page);
  for (const region of REGIONS) {
    await shows(page, `stock-${region}`, 0);
    await shows(page, `likes-${region}`, 6);
    await page.waitForSelector(`#tags-${region} >> text=america`);
    await page.waitForSelector(`#profile-${region} >> text=2 names at once`);
  }
  const texts = await Promise.all(REGIONS.map((region) => field(page, region).inputValue()));
  assert.equal(new Set(texts).size, 1, "the notes differ");
  assert.ok(texts[0].includes(" Guten Morgen!") && texts[0].includes(" Good morning!"), texts[0]);
  await page.waitForSelector("#region-eu .caret[data-region=us]", { state: "attached" });
  await looks(page, "demo-3-healed");

  // Both names are shown with who wrote them; one click decides, everywhere.
  assert.deepEqual((await page.locator("#conflicts .value").allTextContents()).sort(), ["Ada King", "Countess of Lovelace"]);
  await page.locator(".version", { hasText: "Countess of Lovelace" }).getByRole("button").click();
  await page.waitForSelector("#inbox.hidden", { state: "attached" });
  for (const region of REGIONS) await shows(page, `profile-${region}`, "Countess of Lovelace");
  await verdict(page, "good");
  await looks(page, "demo-4-resolved");

  // What the decision replaced is in the journal, and can be had back.
  await page.getByRole("button", { name: "Restore Ada King" }).click();
  for (const region of REGIONS) await shows(page, `profile-${region}`, "Ada King");
  assert.ok((await page.evaluate(() => window.least)) >= 0, "fewer than none was sold");
});

withDemo("people who type in one note at once keep every letter", async (page) => {
  const other = await browser.open(demo.url);
  const words = { eu: "the quick brown fox jumps over the lazy dog", us: "PACK MY BOX WITH FIVE DOZEN LIQUOR JUGS" };
  // One at the start, one in the middle; both also see what the other one types while they do.
  await Promise.all([[page, "eu", "Control+Home"], [other, "us", "Control+End"]].map(async ([at, region, key]) => {
    await field(at, region).focus();
    await at.keyboard.press(key);
    await at.keyboard.type(words[region]);
  }));
  for (const region of REGIONS) {
    for (const at of [page, other]) {
      await noteHas(at, region, words.eu);
      await noteHas(at, region, words.us);
    }
  }
  // Both go on at the end: whatever comes in between, the words of one stay together.
  const more = { eu: " Und hier geht es weiter.", us: " And on it goes from there." };
  await Promise.all([[page, "eu"], [other, "us"]].map(async ([at, region]) => {
    await field(at, region).focus();
    await at.keyboard.press("Control+End");
    await at.keyboard.type(more[region]);
  }));
  for (const at of [page, other]) {
    await noteHas(at, "ap", more.eu);
    await noteHas(at, "ap", more.us);
  }
  // What is taken away is taken away, and nothing else.
  await field(page, "eu").focus();
  await page.keyboard.press("Control+Home");
  for (let letter = 0; letter < 4; letter += 1) await page.keyboard.press("Delete");
  await page.waitForFunction(() => document.getElementById("note-ap").value.startsWith("quick brown"));
  await noteHas(page, "ap", words.us);
  await page.waitForSelector("#region-ap .caret[data-region=eu]", { state: "attached" });
});

for (const reducedMotion of ["reduce", "no-preference"]) withDemo(`the five steps go by their own buttons, motion: ${reducedMotion}`, async (page) => {
  await page.emulateMedia({ reducedMotion });
  for (const [name, done] of [["Type in two regions at once", 1], ["Cut America off", 2], ["Write on both sides", 3], ["Heal the links", 4]]) {
    await page.getByRole("button", { name, exact: true }).click();
    await page.waitForFunction((wanted) => document.querySelectorAll("#steps .done").length >= wanted && !document.getElementById("guide-do").disabled, done);
  }
  for (const region of REGIONS) {
    const text = await field(page, region).inputValue();
    for (const line of ["In Europe: we open at nine.", "In America: we open at eight.", "Europe, alone.", "America, alone."]) {
      assert.ok(text.split("\n").includes(line), text);
    }
  }
  await page.getByRole("button", { name: "Show the two names" }).click();
  await page.waitForFunction(() => document.activeElement.id === "inbox-title");
  await page.keyboard.press("Tab");
  await page.keyboard.press("Enter");
  await page.getByRole("button", { name: "Once more" }).waitFor();
  assert.equal(await page.locator("#steps .done").count(), 5);
});

withDemo("a slow link takes long, and says so", async (page) => {
  const slow = page.locator("#link-eu-us input[value=slow]");
  await slow.focus();
  await page.keyboard.press("Space");
  await page.waitForSelector("#map-eu-us[data-condition=slow]");
  await setLink(page, "us-ap", "cut");
  await page.click("#like-eu");
  await page.waitForSelector("#region-us .pill.wait");
  await shows(page, "likes-us", 4);
  const state = await (await fetch(`${demo.url}demo/state`)).json();
  const took = state.writes.find(({ what }) => what === "+1 like").arrived.us;
  assert.ok(took >= 600, `it took ${took} ms`);
});

withDemo("everything is reached by keyboard", async (page) => {
  await walksByKeyboard(page);
});

withDemo("what people write is text", async (page) => {
  const text = `<img src=x onerror="alert(1)"><b>&amp;`;
  await enter(page, "name-eu", text);
  await enter(page, "tag-eu", "<script>1</script>");
  await field(page, "eu").fill(text);
  for (const region of REGIONS) {
    await shows(page, `profile-${region}`, text);
    await page.waitForFunction(([at, wanted]) => [...document.querySelectorAll(`#tags-${at} .tag`)].some((tag) => tag.textContent.startsWith(wanted)), [region, "<script>1</script>"]);
    await noteHas(page, region, text);
  }
  assert.equal(await page.locator("main img").count(), 0);
});

withDemo("a page whose feed breaks comes back to it", async (page) => {
  let asked = 0;
  const again = await browser.open(demo.url, {
    before: (fresh) => fresh.route("**/demo/events", (route) => {
      asked += 1;
      if (asked < 3) return route.fulfill({ contentType: "text/event-stream", body: "event: state\ndata: {}\n\n" });
      return route.continue();
    }),
  });
  await page.click("#like-ap");
  await shows(again, "likes-ap", 4);
  assert.equal(asked, 3);
});
