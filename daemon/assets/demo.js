// The page of `comity demo`: shows the regions as they are, and writes through each region's own API.

import { Editor } from "./editor.js";
import { WorldMap, placeOf } from "./map.js";
import { ask, attempt, count, duration, el, follow, readable, setChildren, setText, sparkline, toast } from "./page.js";

const byId = (id) => document.getElementById(id);
/** How long something is so before it is told to who listens. */
const TELL_MS = 1200;
/** How long a sale asks the others for what they may sell. */
const SALE_WAIT_MS = 1500;

let state;
let map;
const parts = {};

const isStill = () => matchMedia("(prefers-reduced-motion: reduce)").matches;
const regionOf = (name) => state.regions.find((region) => region.name === name);
const linkOf = (one, other) => state.links.find(({ ends }) => ends.includes(one) && ends.includes(other));
const isCutOff = (name) => state.links.filter(({ ends }) => ends.includes(name)).every(({ condition }) => condition === "cut");
const list = (names) => (names.length < 2 ? names.join("") : `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`);

/** The region that a replica, or its origin in a dot, belongs to. */
const regionOfReplica = (replica) => state.regions.find((region) => region.replica === replica)?.name;

// Writing, each in the region's own API.

const object = (region, kind, collection, key) => `${region}/v1/spaces/${state.space}/${kind}/${collection}/${key}`;
const act = (region, kind, collection, key, what, query = "") => ask("POST", object(region, kind, collection, key) + query, what);
const like = (region) => act(region, "counter", "stats", "likes", { op: "add", by: 1 });
const tag = (region, element) => act(region, "set", "tags", "post", { op: "insert", element });
const untag = (region, element) => act(region, "set", "tags", "post", { op: "remove", element });
const rename = (region, value) => act(region, "register", "profiles", "ada", { op: "write", value });
const restock = (region) => act(region, "bounded-counter", "stock", "apples", { op: "increase", by: 3 });
const setLink = (one, other, condition) => ask("POST", `demo/links/${one}/${other}`, { condition });

async function sell(region) {
  try {
    await act(region, "bounded-counter", "stock", "apples", { op: "decrease", by: 1 }, `?wait_ms=${SALE_WAIT_MS}`);
  } catch (error) {
    if (error.kind !== "insufficient-rights" && error.status !== 409) throw error;
    const { rights, value } = regionOf(region).stock;
    const others = Object.keys(rights).filter((name) => name !== region && rights[name] > 0).map((name) => `${name} ${rights[name]}`);
    toast(value === 0 ? `Sold out: ${region} refuses, rather than sell what is not there.`
      : `${region} refuses: as far as it knows, the rest is for others to sell (${others.join(", ")}), and it cannot ask them.`);
  }
}

// The map.

function makeMap() {
  const place = byId("map");
  map = new WorldMap(place);
  for (const { name, place: city } of state.regions) {
    const [x, y] = placeOf(name);
    const mark = el("div", { class: "place", data: { region: name } }, el("span", {}, name, " ", el("small", {}, city)));
    mark.style.left = `${x * 100}%`;
    mark.style.top = `${y * 100}%`;
    place.append(mark);
  }
  for (const [name, { at }] of Object.entries(map.links)) {
    const [one, other] = name.split("-");
    const toggle = () => attempt(() => setLink(one, other, linkOf(one, other).condition === "cut" ? "live" : "cut"));
    const button = el("button", { class: "map-link", type: "button", id: `map-${name}`, on: { click: toggle } });
    button.style.left = `${at[0] * 100}%`;
    button.style.top = `${at[1] * 100}%`;
    place.append(button);
    parts[name] = { button, ...makeLink(one, other, name) };
  }
}

function makeLink(one, other, name) {
  const choice = el("div", { class: "choice" }, ["live", "slow", "cut"].map((condition) => {
    const change = () => attempt(() => setLink(one, other, condition));
    const input = el("input", { type: "radio", name: `link-${name}`, value: condition, on: { change } });
    return el("label", {}, input, el("span", {}, condition[0].toUpperCase() + condition.slice(1)));
  }));
  const measure = el("div", { class: "measure" });
  const status = el("span", { class: "pill" });
  const head = el("div", { class: "row spread" }, el("span", { class: "label", "aria-hidden": "true" }, `${one} ↔ ${other}`), status);
  const card = el("fieldset", { class: "link-card", id: `link-${name}` },
    el("legend", { class: "visually-hidden" }, `The link between ${one} and ${other}`), head, choice, measure);
  byId("links").append(card);
  return { choice, measure, status };
}

function showLink(link) {
  const name = link.ends.join("-");
  const [one, other] = link.ends;
  const { button, choice, measure, status } = parts[name];
  const { condition } = link;
  map.setCondition(name, condition);
  const waiting = link.ways.reduce((sum, { lacks }) => sum + lacks, 0);
  button.dataset.condition = condition;
  const trip = duration(link.round_trip_ms);
  setText(button, condition === "cut" ? "✕ cut" : condition === "slow" ? `slow · ${trip}` : trip);
  button.setAttribute("aria-label", condition === "cut" ? `Heal the link between ${one} and ${other}`
    : `Cut the link between ${one} and ${other}, round trip ${trip}`);
  button.title = condition === "cut" ? "Click to heal" : "Click to cut";
  for (const input of choice.querySelectorAll("input")) input.checked = input.value === condition;
  const isMeeting = condition !== "cut" && !link.connected;
  status.className = `pill ${condition === "cut" ? "bad" : isMeeting || waiting ? "wait" : condition === "slow" ? "wait" : "good"}`;
  setText(status, condition === "cut" ? "no datagram passes" : isMeeting ? "connecting" : `round trip ${trip}`);
  setChildren(measure, link.ways, () => link.ways.flatMap((way) => [
    el("span", {}, `${way.from} → ${way.to}`),
    sparkline(way.took_ms),
    way.lacks ? el("span", { class: "lacks" }, `${way.lacks} waiting${way.behind_ms >= 1000 ? `, ${duration(way.behind_ms)}` : ""}`)
      : el("span", {}, way.took_ms.length ? duration(way.took_ms.at(-1)) : "nothing yet"),
  ]));
}

// The regions.

function makeRegion({ name, place }) {
  const field = el("textarea", { id: `note-${name}`, maxlength: 2000, spellcheck: "false", autocomplete: "off", "aria-describedby": `cursors-${name}` });
  const behind = el("div", { class: "behind", "aria-hidden": "true" });
  const editor = new Editor(name, field, behind, (splice) => ask("POST", `demo/regions/${name}/type`, splice));
  editor.failed = (error) => toast(error.message);
  const status = el("span", { class: "pill" });
  const likes = el("span", { class: "big", id: `likes-${name}` });
  const stock = el("span", { class: "big", id: `stock-${name}` });
  const rights = el("span", { class: "detail", id: `rights-${name}` });
  const tags = el("div", { class: "tags full", id: `tags-${name}` });
  const profile = el("div", { id: `profile-${name}` });
  const digest = el("span", { class: "mono", id: `digest-${name}` });
  const dashboard = el("a", { target: "_blank", rel: "noopener" }, "Dashboard of ", name);
  const nameField = el("input", { id: `name-${name}`, maxlength: 60, placeholder: "Another name", autocomplete: "off", class: "grow", "aria-label": `A name, written in ${name}` });
  const tagField = el("input", { id: `tag-${name}`, maxlength: 24, placeholder: "Another tag", autocomplete: "off", class: "grow", "aria-label": `A tag, added in ${name}` });
  const submit = (input, what) => (event) => {
    event.preventDefault();
    const text = input.value.trim();
    if (!text) return input.focus();
    return attempt(async () => {
      await what(name, text);
      input.value = "";
    });
  };
  const press = (text, what, properties = {}) => el("button", { type: "button", ...properties, on: { click: () => attempt(() => what(name)) } }, text);
  const article = el("article", { class: "card region", data: { region: name }, "aria-labelledby": `title-${name}`, id: `region-${name}` },
    el("header", {}, el("h2", { id: `title-${name}` }, name), el("span", { class: "muted" }, place), status),
    el("div", { class: "note-block" },
      el("label", { class: "label", for: `note-${name}` }, "The shared note"),
      el("div", { class: "note" }, behind, field),
      el("span", { class: "visually-hidden", id: `cursors-${name}` }, "Marks show where other regions typed last.")),
    el("div", { class: "facts" },
      el("div", { class: "fact" }, el("span", { class: "label" }, "Likes"), likes, press("♥ Like", like, { id: `like-${name}` })),
      el("div", { class: "fact" }, el("span", { class: "label" }, "Apples"), el("div", {}, el("div", {}, stock, " left"), rights),
        el("div", { class: "row" }, press("Sell 1", sell, { id: `sell-${name}` }), press("+3", restock, { id: `restock-${name}`, class: "quiet", "aria-label": "Restock three" }))),
      el("div", { class: "fact" }, el("span", { class: "label" }, "Name"), el("div", { class: "full" }, profile),
        el("form", { on: { submit: submit(nameField, rename) } }, el("span", {}), el("div", { class: "row full" }, nameField, el("button", { type: "submit" }, "Write")))),
      el("div", { class: "fact" }, el("span", { class: "label" }, "Tags"), tags,
        el("form", { on: { submit: submit(tagField, tag) } }, el("span", {}), el("div", { class: "row full" }, tagField, el("button", { type: "submit" }, "Add"))))),
    el("footer", {}, el("span", {}, "State ", digest), dashboard));
  byId("regions").append(article);
  parts[name] = { editor, status, likes, stock, rights, tags, profile, digest, dashboard, sellButton: article.querySelector(`#sell-${name}`) };
}

function showRegion(region) {
  const { name } = region;
  const part = parts[name];
  part.editor.show(region.note, region.applied);
  setText(part.likes, region.likes);
  setText(part.stock, region.stock.value);
  const here = region.stock.rights[name];
  setText(part.rights, `${name} may sell ${here} on its own`);
  const { profile } = region;
  setChildren(part.profile, profile, () => {
    if (profile?.state !== "conflict") return el("span", { class: "break" }, profile ? readable(profile.value) : "–");
    return el("div", { class: "both" }, el("span", { class: "pill wait" }, `${profile.siblings.length} names at once, all kept`),
      profile.siblings.map((sibling) => el("span", { class: "break" }, readable(sibling.value))));
  });
  setChildren(part.tags, region.tags, () => region.tags.map((text) => el("span", { class: "tag" }, el("span", { class: "break" }, readable(text)),
    el("button", { type: "button", "aria-label": `Remove the tag ${readable(text)}`, on: { click: () => attempt(() => untag(name, text)) } }, "×"))));
  if (region.digest) {
    setText(part.digest, region.digest.slice(0, 8));
    part.digest.title = region.digest;
  }
  part.dashboard.href = region.dashboard ?? `${name}/`;
  const lacks = Math.max(...state.links.flatMap(({ ways }) => ways.filter(({ to }) => to === name)).map((way) => way.lacks));
  const [kind, text] = isCutOff(name) ? ["bad", "cut off, and writing on"] : lacks ? ["wait", `${count(lacks, "change")} not here yet`] : ["good", "in step"];
  part.status.className = `pill ${kind}`;
  setText(part.status, text);
}

/** Which regions show the same, by their digests. */
function groups() {
  const by = {};
  // One that has none to show is just about to change.
  for (const { name, digest } of state.regions) (by[digest ?? name] ??= []).push(name);
  return Object.values(by);
}

const agrees = () => groups().length === 1;

let told;
let telling;

/** Tells whoever listens how things are, once they have been so for a while. */
function tell(text) {
  if (text === told) return;
  told = text;
  clearTimeout(telling);
  telling = setTimeout(() => setText(byId("news"), text), TELL_MS);
}

function showVerdict() {
  const verdict = byId("verdict");
  const found = groups();
  const cut = state.links.filter(({ condition }) => condition === "cut").map(({ ends }) => ends.join("–"));
  const isCut = cut.length > 0;
  const open = openConflicts().length;
  tell([found.length === 1 ? "All regions agree." : "The regions differ.", isCut && `Cut: ${list(cut)}.`, open && `${count(open, "conflict")} to decide.`].filter(Boolean).join(" "));
  if (found.length === 1) {
    verdict.className = "verdict pill good";
    setText(verdict, `All three regions agree · state ${state.regions[0].digest.slice(0, 8)}`);
  } else {
    verdict.className = "verdict pill wait";
    const said = found.length === 3 ? "Each region has a version of its own" : `${list(found.find((group) => group.length === 2))} agree, ${found.find((group) => group.length === 1)} differs`;
    setText(verdict, isCut ? `${said}; nobody waits` : `${said} for a moment`);
  }
}

// What travels.

let newest = -1;

function showLog() {
  for (const write of [...state.writes].reverse()) {
    if (write.number <= newest) continue;
    const isFirst = newest < 0;
    newest = write.number;
    if (isFirst && state.writes.length > 1) continue;
    for (const to of Object.keys(write.arrived)) {
      const link = linkOf(write.region, to);
      map.send(write.region, to, { ms: link.round_trip_ms / 2, isCut: link.condition === "cut" });
    }
  }
  // What was typed character by character is one line.
  const shown = [];
  for (const write of state.writes) {
    const last = shown.at(-1);
    if (last && last.region === write.region && last.what === write.what) last.times += 1;
    else shown.push({ ...write, times: 1 });
  }
  setChildren(byId("log"), shown, () => (shown.length ? shown.slice(0, 14).map((write) => el("li", { data: { region: write.region } },
    el("span", { class: "break" }, el("b", {}, write.region), ` ${write.what}${write.times > 1 ? ` ×${write.times}` : ""}`),
    el("span", { class: "arrived" }, Object.entries(write.arrived).map(([to, ms]) => el("span", { class: ms === null ? "pending" : undefined }, `${to} ${ms === null ? "waits" : `+${duration(ms)}`}`)))))
    : el("li", { class: "empty" }, "Nothing yet. Type in one of the notes below.")));
}

// What people decide.

function openConflicts() {
  const found = {};
  for (const region of state.regions) {
    for (const conflict of region.conflicts) {
      if (conflict.matter !== "siblings") continue;
      const { kind, collection, key } = conflict.location;
      const entry = (found[`${kind} ${collection}/${key}`] ??= { conflict, seenIn: [] });
      entry.seenIn.push(region.name);
    }
  }
  return Object.entries(found);
}

function showInbox() {
  const open = openConflicts();
  const inbox = byId("inbox");
  const hadFocus = inbox.contains(document.activeElement);
  inbox.classList.toggle("hidden", open.length === 0);
  setText(byId("inbox-text"), "Two names were written at the same time, each without knowing of the other. Most data merges by itself; here Comity keeps both and asks. Decide in one region, and all follow.");
  setChildren(byId("conflicts"), open, () => open.map(([, { conflict, seenIn }]) => decide(conflict, seenIn)));
  if (hadFocus && open.length === 0) byId("guide-do").focus();
}

function decide(conflict, seenIn) {
  const seen = conflict.siblings.map(({ dot }) => dot);
  const resolve = (choice) => attempt(() => ask("POST", `${seenIn[0]}/v1/spaces/${state.space}/conflicts/resolve`, { location: conflict.location, seen, ...choice }));
  const other = el("input", { maxlength: 60, "aria-label": "Another value", placeholder: "Something else", autocomplete: "off" });
  const versions = conflict.siblings.map((sibling) => {
    const region = sibling.region ?? regionOfReplica(sibling.author) ?? "";
    const at = new Date(sibling.written_ms).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });
    return el("div", { class: "version", data: { region } },
      el("div", {}, el("p", { class: "label" }, `Written in ${region} at ${at}`), el("p", { class: "value" }, readable(sibling.value))),
      el("button", { type: "button", class: "primary", "aria-label": `Keep this one: ${readable(sibling.value)}`, on: { click: () => resolve({ keep: sibling.dot }) } }, "Keep this one"));
  });
  const write = (event) => {
    event.preventDefault();
    if (other.value.trim()) resolve({ value: other.value.trim() });
    else other.focus();
  };
  const third = el("div", { class: "version" }, el("p", { class: "label" }, "Or write another"), el("form", { on: { submit: write } }, other, el("button", { type: "submit" }, "Write")));
  const { collection, key } = conflict.location;
  return el("div", { class: "conflict" }, el("p", { class: "small muted" }, `${collection}/${key} · in conflict in ${list(seenIn)}`), el("div", { class: "versions" }, versions, third));
}

function showJournal() {
  // Every region keeps it; the one that has most shows it.
  const entries = state.regions.map((region) => ({ region: region.name, entries: region.journal.filter(({ reason }) => reason.startsWith("sibling")) }));
  const most = entries.reduce((one, other) => (other.entries.length > one.entries.length ? other : one));
  byId("journal").classList.toggle("hidden", most.entries.length === 0);
  setChildren(byId("journal-entries"), most, () => most.entries.map((entry) => {
    const region = regionOfReplica(entry.author) ?? "";
    const restore = () => attempt(() => ask("POST", `${most.region}/v1/spaces/${state.space}/journal/restore`, { location: entry.location, dot: entry.dot }));
    return el("li", { data: { region } }, el("span", { class: "region-dot", "aria-hidden": "true" }),
      el("span", { class: "break" }, readable(entry.value), el("span", { class: "muted small" }, ` ${entry.location.collection}/${entry.location.key}, written in ${region}`)),
      el("button", { type: "button", "aria-label": `Restore ${readable(entry.value)}`, on: { click: restore } }, "Restore"));
  }));
}

// The five steps.

let waiting = [];

/** Waits until the state is so. */
const until = (isSo) => new Promise((resolve) => {
  waiting.push({ isSo, resolve });
  wake();
});

function wake() {
  waiting = waiting.filter(({ isSo, resolve }) => !isSo() || resolve());
}

const SAYS = {
  eu: "\nIn Europe: we open at nine.",
  us: "\nIn America: we open at eight.",
};

async function typeInTwo(texts) {
  byId(`note-${Object.keys(texts)[0]}`).scrollIntoView({ block: "nearest", behavior: isStill() ? "auto" : "smooth" });
  const pause = isStill() ? 0 : 45;
  await Promise.all(Object.entries(texts).map(([region, text]) => parts[region].editor.type(text, pause)));
}

async function writeApart() {
  await Promise.all([
    rename("eu", "Ada King"), rename("us", "Countess of Lovelace"), like("eu"), like("us"), like("us"),
    tag("eu", "europe"), tag("us", "america"), sell("eu"), sell("us"), sell("us"),
    typeInTwo({ eu: "\nEurope, alone.", us: "\nAmerica, alone." }),
  ]);
}

const STEPS = [
  {
    name: "Write",
    text: "Type in any region, like, tag, sell. It is saved on that region’s own disk at once, and then travels to the others.",
    action: "Type in two regions at once",
    run: async () => {
      await typeInTwo(SAYS);
      // What is still on its way when a region is cut off would meet what is typed there next.
      await until(() => agrees() || state.links.some(({ condition }) => condition === "cut"));
    },
    isDone: () => newestNumber() > newestAtStart,
  },
  {
    name: "Cut",
    text: "Now cut a region off: click the links on the map. No datagram passes a link that is cut.",
    action: "Cut America off",
    run: () => Promise.all([setLink("eu", "us", "cut"), setLink("us", "ap", "cut")]),
    isDone: () => state.links.some(({ condition }) => condition === "cut"),
  },
  {
    name: "Diverge",
    text: "Every region goes on, at full speed. Write on both sides: even the same name, even selling the same apples. None is sold twice.",
    action: "Write on both sides",
    run: writeApart,
    isDone: isApart,
  },
  {
    name: "Heal",
    text: "Each side has its own version now. Let them meet again: everything arrives, is merged, and nothing is lost.",
    action: "Heal the links",
    run: () => Promise.all(state.links.filter(({ condition }) => condition === "cut").map(({ ends }) => setLink(ends[0], ends[1], "live"))),
    isDone: () => state.links.every(({ condition }) => condition !== "cut") && agrees(),
  },
  {
    name: "Resolve",
    text: "Typing, likes, tags and apples merged by themselves. Two names cannot be one, so Comity kept both. Decide below.",
    action: "Show the two names",
    run: () => {
      byId("inbox").scrollIntoView({ block: "center", behavior: isStill() ? "auto" : "smooth" });
      byId("inbox-title").focus({ preventScroll: true });
    },
    isDone: () => openConflicts().length === 0 && agrees(),
  },
];

/** Whether two sides have written since the cut what the other one lacks. */
function isApart() {
  const kept = state.writes.filter(({ number, region, arrived }) => number > newestAtCut
    && Object.entries(arrived).some(([to, ms]) => ms === null && linkOf(region, to).condition === "cut"));
  return new Set(kept.map(({ region }) => region)).size > 1;
}

/** The newest write before this round of the steps, and before the cut. */
let newestAtStart = -1;
let newestAtCut = -1;
let step = 0;
let isBusy = false;

function makeGuide() {
  byId("steps").append(...STEPS.map(({ name }) => el("li", {}, name)));
  byId("guide-do").addEventListener("click", async () => {
    if (step === STEPS.length) {
      step = 0;
      newestAtStart = newestNumber();
      return showGuide();
    }
    isBusy = true;
    showGuide();
    await attempt(STEPS[step].run);
    isBusy = false;
    return showGuide();
  });
}

const newestNumber = () => state.writes[0]?.number ?? -1;

function showGuide() {
  // A step is done once what it is about is so, whoever did it.
  while (!isBusy && step < STEPS.length) {
    if (!STEPS[step].isDone()) break;
    step += 1;
    if (step === 2) newestAtCut = newestNumber();
  }
  [...byId("steps").children].forEach((item, at) => {
    item.className = at < step ? "done" : "";
    if (at === step) item.setAttribute("aria-current", "step");
    else item.removeAttribute("aria-current");
  });
  const now = STEPS[step];
  setText(byId("guide-text"), now?.text ?? "Nothing was lost, nobody waited for the other side of an ocean, and all regions show the same. That is Comity.");
  setText(byId("guide-do"), now?.action ?? "Once more");
  byId("guide-do").disabled = isBusy;
}

// All of it.

function show(next) {
  if (!next.regions) return;
  const isFirst = state === undefined;
  state = next;
  if (isFirst) {
    makeMap();
    state.regions.forEach(makeRegion);
    // Links that are cut already, after a reload, are where the story is.
    if (state.links.some(({ condition }) => condition === "cut")) step = 2;
    byId("guide-do").disabled = false;
  }
  state.regions.forEach(showRegion);
  state.links.forEach(showLink);
  showVerdict();
  showLog();
  showInbox();
  showJournal();
  wake();
  showGuide();
  document.body.dataset.ready = "true";
}

makeGuide();
follow("demo/events", {
  event: (name, data) => name === "state" && show(data),
  lost: () => {
    byId("verdict").className = "verdict pill bad";
    setText(byId("verdict"), "The demo does not answer. Is it still running?");
  },
});
