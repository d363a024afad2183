// What every page of Comity needs: elements without markup in strings, requests, and feeds that come back.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, properties, children) {
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "on") for (const [event, what] of Object.entries(value)) node.addEventListener(event, what);
    else if (name === "data") for (const [key, text] of Object.entries(value)) node.dataset[key] = text;
    else if (value === true) node.setAttribute(name, "");
    else node.setAttribute(name, String(value));
  }
  node.append(...children.flat().filter((child) => child !== undefined && child !== null && child !== false));
  return node;
}

/** An HTML element. Texts become text nodes, so nothing that a user wrote is ever markup. */
export const el = (tag, properties, ...children) => fill(document.createElement(tag), properties, children);

/** An SVG element. */
export const svg = (tag, properties, ...children) => fill(document.createElementNS(SVG, tag), properties, children);

/** Sets a text only when it differs, so that what reads aloud is not told twice. */
export function setText(node, text) {
  const wanted = String(text);
  if (node.textContent !== wanted) node.textContent = wanted;
}

/** Replaces the children when what they are made of has changed. Keeps what has the focus otherwise. */
export function setChildren(node, key, make) {
  const wanted = JSON.stringify(key);
  if (node.madeOf === wanted) return;
  node.madeOf = wanted;
  node.replaceChildren(...[make()].flat());
}

/** A problem that an answer told of. */
export class Problem extends Error {
  constructor(status, body) {
    super(body.detail ?? body.title ?? `the answer was ${status}`);
    this.status = status;
    this.kind = String(body.type ?? "").replace("urn:comity:problem:", "");
    this.body = body;
  }
}

/** The token with which a page asks; kept for this tab only. */
export const access = {
  get token() {
    return sessionStorage.getItem("comity-token") ?? "";
  },
  set token(token) {
    sessionStorage.setItem("comity-token", token);
  },
  headers() {
    return this.token ? { authorization: `Bearer ${this.token}` } : {};
  },
};

/** Asks and answers with the JSON; throws a Problem. */
export async function ask(method, path, body, headers = {}) {
  const options = { method, headers: { ...access.headers(), ...headers } };
  if (body !== undefined) {
    options.headers["content-type"] ??= "application/json";
    options.body = JSON.stringify(body);
  }
  const response = await fetch(path, options);
  const text = await response.text();
  let parsed = {};
  try {
    parsed = text ? JSON.parse(text) : {};
  } catch {
    parsed = { detail: text };
  }
  if (!response.ok) throw new Problem(response.status, parsed);
  return parsed;
}

async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    rest += value.replaceAll("\r", "");
    for (let end = rest.indexOf("\n\n"); end >= 0; end = rest.indexOf("\n\n")) {
      const event = { name: "message", id: undefined, data: [] };
      for (const line of rest.slice(0, end).split("\n")) {
        const colon = line.indexOf(":");
        const [field, content] = colon < 0 ? [line, ""] : [line.slice(0, colon), line.slice(colon + 1).replace(/^ /, "")];
        if (field === "event") event.name = content;
        if (field === "id") event.id = content;
        if (field === "data") event.data.push(content);
      }
      rest = rest.slice(end + 2);
      yield { ...event, data: event.data.join("\n") };
    }
  }
}

const RETRY_MS_MAX = 5000;

/**
 * Follows a feed for as long as the page is open, and goes on where it was after a break. `on.open` and `on.lost` are
 * told of the connection. The function that is returned ends it.
 */
export function follow(path, on) {
  const stop = new AbortController();
  let last;
  const run = async () => {
    let wait = 250;
    while (!stop.signal.aborted) {
      try {
        const headers = { accept: "text/event-stream", ...access.headers() };
        if (last !== undefined) headers["last-event-id"] = last;
        const response = await fetch(path, { headers, signal: stop.signal, cache: "no-store" });
        if (response.status === 401 || response.status === 403 || response.status === 404) {
          on.refused?.(response.status);
          return;
        }
        if (!response.ok) throw new Error(`the feed answered ${response.status}`);
        on.open?.();
        wait = 250;
        for await (const event of events(response.body)) {
          if (event.id !== undefined) last = event.id;
          on.event(event.name, event.data ? JSON.parse(event.data) : undefined);
        }
      } catch (error) {
        if (stop.signal.aborted) return;
        console.debug("a feed broke", error);
      }
      on.lost?.();
      await new Promise((wake) => setTimeout(wake, wait));
      wait = Math.min(wait * 2, RETRY_MS_MAX);
    }
  };
  run();
  return () => stop.abort();
}

/** Milliseconds as people read them. */
export function duration(ms) {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(ms < 10_000 ? 1 : 0)} s`;
  if (ms < 3_600_000) return `${Math.floor(ms / 60_000)} min`;
  if (ms < 86_400_000) return `${Math.floor(ms / 3_600_000)} h`;
  return `${Math.floor(ms / 86_400_000)} d`;
}

/** One thing, or several. */
export const count = (number, one, many = `${one}s`) => `${number} ${number === 1 ? one : many}`;

/** A value as a person reads it: texts as they are, the rest as JSON. */
export const readable = (value) => (typeof value === "string" ? value : JSON.stringify(value));

let toastTimer;

/** Tells what happened, for a while. */
export function toast(text) {
  const place = document.getElementById("toast");
  setText(place, text);
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => setText(place, ""), 8000);
}

/** Does something, and tells when it fails. */
export async function attempt(what) {
  try {
    return await what();
  } catch (error) {
    toast(error.message);
    return undefined;
  }
}

/** A line of small measurements, for the eye; the numbers are beside it as text. Null is a gap. */
export function sparkline(values, { width = 120, height = 28, shownMax = 48 } = {}) {
  const shown = values.slice(-shownMax);
  const top = Math.max(...shown.map((value) => value ?? 0), 1);
  const step = width / Math.max(shown.length - 1, 1);
  let isDown = false;
  const path = shown.map((value, at) => {
    const wasDown = isDown;
    isDown = value !== null;
    if (!isDown) return "";
    return `${wasDown ? "L" : "M"}${(at * step).toFixed(1)} ${(height - 3 - (value / top) * (height - 6)).toFixed(1)}`;
  });
  const picture = svg("svg", { class: "sparkline", viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", "aria-hidden": "true" });
  picture.append(svg("path", { class: "sparkline-base", d: `M0 ${height - 3}H${width}` }));
  if (shown.length > 1) picture.append(svg("path", { class: "sparkline-line", d: path.join("") || "M0 0" }));
  return picture;
}
