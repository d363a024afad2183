// Starting the program and the browser, and what all tests look at.

import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import assert from "node:assert/strict";
import { chromium } from "playwright-core";

const PROGRAM = process.env.COMITY_PROGRAM;
const BROWSER = process.env.COMITY_CHROMIUM ?? "/usr/bin/chromium";
const ARTIFACTS = process.env.COMITY_BROWSER_ARTIFACTS ?? join(tmpdir(), "comity-browser");

/** How long anything here may take. Nothing waits for this long when all is well. */
export const PATIENCE_MS = 30_000;

/** A process of the program. `said` settles with the match once it has said it. */
export class Program {
  constructor(args) {
    this.directory = mkdtempSync(join(tmpdir(), "comity-test-"));
    this.output = "";
    this.waiting = [];
    // What configures the tests is none of the program's configuration.
    const inherited = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("COMITY_")));
    this.process = spawn(PROGRAM, args, { env: { ...inherited, TMPDIR: this.directory }, cwd: this.directory });
    for (const stream of [this.process.stdout, this.process.stderr]) {
      stream.setEncoding("utf8").on("data", (text) => {
        this.output += text;
        this.look();
      });
    }
    this.ended = new Promise((resolve) => this.process.on("close", (code) => resolve(code)));
    this.ended.then(() => this.waiting.forEach(({ reject }) => reject(new Error(`the program ended: ${this.output}`))));
  }

  look() {
    this.waiting = this.waiting.filter(({ pattern, resolve }) => {
      const found = this.output.match(pattern);
      if (found) resolve(found);
      return !found;
    });
  }

  said(pattern) {
    return new Promise((resolve, reject) => {
      this.waiting.push({ pattern, resolve, reject });
      this.look();
    });
  }

  /** Ends it as Ctrl-C does, and checks that it leaves nothing behind. */
  async stop() {
    this.process.kill("SIGINT");
    const code = await this.ended;
    const left = readdirSync(this.directory).filter((name) => name.startsWith("comity-demo-"));
    rmSync(this.directory, { recursive: true, force: true });
    assert.deepEqual({ code, left }, { code: 0, left: [] }, this.output);
  }
}

/** The demo: its page, and the address of each region's dashboard. */
export async function startDemo() {
  const program = new Program(["demo", "--port", "0"]);
  const [, url] = await program.said(/Open +(http:\S+)/);
  const dashboards = Object.fromEntries([...program.output.matchAll(/^ +(eu|us|ap) .*(http:\S+)$/gm)].map(([, region, at]) => [region, at]));
  return { program, url, dashboards };
}

/** A browser. Every page of it is watched: errors, refused content and requests to elsewhere fail the test. */
export class Browser {
  static async start() {
    const profile = mkdtempSync(join(tmpdir(), "comity-profile-"));
    const args = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];
    const context = await chromium.launchPersistentContext(profile, {
      executablePath: BROWSER, headless: true, args, viewport: { width: 1280, height: 900 }, reducedMotion: "reduce", locale: "en-GB",
    });
    return new Browser(profile, context);
  }

  constructor(profile, context) {
    this.profile = profile;
    this.context = context;
    this.faults = [];
    context.setDefaultTimeout(PATIENCE_MS);
  }

  async open(url, { ready = true, before } = {}) {
    const page = await this.context.newPage();
    const { host } = new URL(url);
    page.on("pageerror", (error) => this.faults.push(`${error}`));
    page.on("dialog", (dialog) => {
      this.faults.push(`a dialog: ${dialog.message()}`);
      dialog.dismiss();
    });
    page.on("console", (message) => {
      // What the API refuses is part of the tests; the browser reports each as an error of its own.
      const isRefusal = message.text().startsWith("Failed to load resource");
      if (message.type() === "error" && !isRefusal) this.faults.push(message.text());
    });
    page.on("request", (request) => {
      if (new URL(request.url()).host !== host) this.faults.push(`a request to elsewhere: ${request.url()}`);
    });
    await before?.(page);
    await page.goto(url);
    if (ready) await page.waitForSelector("body[data-ready=true]");
    return page;
  }

  async stop() {
    await this.context.close();
    rmSync(this.profile, { recursive: true, force: true });
    assert.deepEqual(this.faults, []);
  }
}

/** Keeps a picture for people to look at. */
export async function picture(page, name) {
  mkdirSync(ARTIFACTS, { recursive: true });
  await page.screenshot({ path: join(ARTIFACTS, `${name}.png`), fullPage: true });
}

/** Looks at the page in both schemes and at both widths: nothing may be wider than the screen, nor cut off its text. */
export async function looks(page, name) {
  for (const [width, height] of [[1280, 900], [390, 844]]) {
    for (const colorScheme of ["light", "dark"]) {
      await page.setViewportSize({ width, height });
      await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
      await picture(page, `${name}-${width}-${colorScheme}`);
      const tooWide = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
      assert.ok(tooWide <= 0, `${name} is ${tooWide} px too wide at ${width} px`);
      assert.deepEqual(await faint(page), [], `${name} at ${width} px, ${colorScheme}`);
    }
  }
  await page.setViewportSize({ width: 1280, height: 900 });
  await page.emulateMedia({ colorScheme: "light", reducedMotion: "reduce" });
}

/** Texts with less contrast than 4.5 to 1 against what is behind them (WCAG 2.2, 1.4.3), and buttons too small to hit. */
function faint(page) {
  return page.evaluate(() => {
    const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    const rgba = (colour) => {
      canvas.clearRect(0, 0, 1, 1);
      canvas.fillStyle = colour;
      canvas.fillRect(0, 0, 1, 1);
      return [...canvas.getImageData(0, 0, 1, 1).data];
    };
    const over = (top, below) => top.slice(0, 3).map((part, at) => part * (top[3] / 255) + below[at] * (1 - top[3] / 255));
    const behind = (node) => {
      const layers = [];
      for (let at = node; at; at = at.parentElement) {
        const layer = rgba(getComputedStyle(at).backgroundColor);
        layers.push(layer);
        if (layer[3] === 255) break;
      }
      return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255]);
    };
    const light = (colour) => {
      const [r, g, b] = colour.map((part) => (part / 255 <= 0.04045 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4));
      return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const found = [];
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
      const node = texts.currentNode.parentElement;
      const box = node.getBoundingClientRect();
      if (!texts.currentNode.textContent.trim() || box.width < 2 || !node.checkVisibility({ opacityProperty: true, visibilityProperty: true })) continue;
      if (node.closest(".behind, .visually-hidden, option, :disabled, .skip")) continue;
      const ground = behind(node);
      const [one, other] = [light(over(rgba(getComputedStyle(node).color), ground)), light(ground)].sort((a, b) => b - a);
      const ratio = (one + 0.05) / (other + 0.05);
      if (ratio < 4.5) found.push(`${texts.currentNode.textContent.trim().slice(0, 40)}: ${ratio.toFixed(2)}`);
    }
    for (const node of document.querySelectorAll("button, select, input:not([type=radio])")) {
      const box = node.getBoundingClientRect();
      if (box.width > 0 && (box.width < 24 || box.height < 24)) found.push(`${node.textContent || node.id} is ${box.width} by ${box.height} px`);
    }
    return found;
  });
}

/** Goes through the page by Tab from its start, and checks that everything that can be used is reached and shows it. */
export async function walksByKeyboard(page) {
  const wanted = await page.evaluate(() => {
    document.activeElement?.blur?.();
    const all = [...document.querySelectorAll("a[href], button, input, select, textarea")];
    const usable = all.filter((node) => !node.disabled && node.checkVisibility() && (node.type !== "radio" || node.checked));
    usable.forEach((node, at) => { node.dataset.walk = String(at); });
    return usable.length;
  });
  assert.ok(wanted > 3);
  const reached = new Set();
  const unseen = [];
  for (let step = 0; step < wanted + 3 && reached.size < wanted; step += 1) {
    await page.keyboard.press("Tab");
    const at = await page.evaluate(() => {
      const node = document.activeElement;
      const shows = (one) => one && getComputedStyle(one).outlineStyle !== "none" && parseFloat(getComputedStyle(one).outlineWidth) >= 2;
      const isShown = shows(node) || shows(node.nextElementSibling) || shows(node.parentElement);
      return { walk: node.dataset?.walk, isShown, what: node.outerHTML.slice(0, 80) };
    });
    if (at.walk === undefined) continue;
    reached.add(at.walk);
    if (!at.isShown) unseen.push(at.what);
  }
  assert.equal(reached.size, wanted, "some things cannot be reached by keyboard");
  assert.deepEqual(unseen, [], "the focus is not seen");
}
