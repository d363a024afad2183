// The objects of a space, and the history of documents.

import { ask, attempt, count, el, readable, setChildren, setText } from "./page.js";

const KINDS = ["document", "register", "counter", "bounded-counter", "set", "remove-wins-set", "flag", "disable-wins-flag", "map"];
const PAGE = 100;

export function makeObjects({ inSpace, hashOf, where, when }) {
  const path = (...parts) => inSpace(`/${parts.map(encodeURIComponent).join("/")}`);
  const kinds = el("select", { id: "kind" }, KINDS.map((kind) => el("option", { value: kind }, kind)));
  const collections = el("select", { id: "collection" });
  const prefix = el("input", { id: "prefix", autocomplete: "off", placeholder: "Starts with" });
  const keys = el("ul", { class: "keys", id: "keys" });
  const more = el("button", { type: "button", class: "hidden" }, "More");
  const object = el("section", { class: "card object", id: "object" });
  const go = (...parts) => {
    location.hash = hashOf("objects", ...parts);
  };
  kinds.addEventListener("change", () => go(kinds.value));
  collections.addEventListener("change", () => go(kinds.value, collections.value));
  prefix.addEventListener("input", () => attempt(listKeys));
  const node = el("div", { class: "columns browse" },
    el("section", { class: "card" }, el("h2", { class: "visually-hidden" }, "Objects"),
      el("form", { on: { submit: (event) => event.preventDefault() } },
        el("label", {}, el("span", { class: "label" }, "Kind"), kinds), el("label", {}, el("span", { class: "label" }, "Collection"), collections),
        el("label", {}, el("span", { class: "label" }, "Key"), prefix)), keys, more),
    object);

  let at = {};
  /** The version of a document that is shown, where it is not the newest. */
  let version;

  async function listKeys(after) {
    const { kind, collection } = at;
    if (collection === undefined) {
      setChildren(keys, [kind], () => el("li", { class: "empty" }, `There is no ${kind} in this space.`));
      more.classList.add("hidden");
      return;
    }
    const query = `?limit=${PAGE}&prefix=${encodeURIComponent(prefix.value)}${after ? `&after=${encodeURIComponent(after)}` : ""}`;
    const page = await ask("GET", path(kind, collection) + query);
    if (kind !== at.kind || collection !== at.collection) return;
    const links = () => page.keys.map((key) => el("li", {}, el("a", { href: hashOf("objects", kind, collection, key), "aria-current": key === at.key ? "true" : undefined }, key)));
    if (after) keys.append(...links());
    else setChildren(keys, [at, page.keys], () => (page.keys.length ? links() : el("li", { class: "empty" }, "No such key.")));
    more.classList.toggle("hidden", !page.next);
    more.onclick = () => attempt(() => listKeys(page.next));
  }

  async function show() {
    const [kind = at.kind ?? "document", collection, key] = where().rest;
    const found = (await ask("GET", `${path(kind)}?limit=1000`)).collections;
    const wanted = { kind, collection: found.includes(collection) ? collection : found[0], key: collection === undefined || found.includes(collection) ? key : undefined };
    if (wanted.kind !== at.kind || wanted.collection !== at.collection || wanted.key !== at.key) version = undefined;
    at = wanted;
    kinds.value = kind;
    setChildren(collections, [kind, found], () => found.map((name) => el("option", { value: name }, name)));
    collections.value = at.collection ?? "";
    await listKeys();
    await showObject();
  }

  async function showObject() {
    const { kind, collection, key } = at;
    if (key === undefined) {
      setChildren(object, [], () => el("p", { class: "empty" }, "Choose an object."));
      return;
    }
    let shown;
    try {
      shown = await read(kind, collection, key);
    } catch (error) {
      if (error.status !== 404) throw error;
      shown = { missing: true };
    }
    if (kind !== at.kind || collection !== at.collection || key !== at.key) return;
    setChildren(object, [at, version, shown], () => [
      el("div", {}, el("h2", { class: "break" }, key), el("p", { class: "muted small break" }, `${kind} in ${collection}`)),
      ...[shown.missing ? el("p", { class: "empty" }, "It holds nothing any more.") : (SHOWN[kind] ?? SHOWN.other)(shown)].flat(),
    ]);
  }

  async function read(kind, collection, key) {
    const base = path(kind, collection, key);
    if (kind !== "document") return ask("GET", base);
    const history = await ask("GET", `${base}/versions?limit=${PAGE}`);
    const chosen = history.versions.find(({ hash }) => hash === version);
    const shown = await ask("GET", chosen ? `${base}?heads=${chosen.hash}` : base);
    const diff = chosen && (await ask("GET", `${base}/diff?from=${chosen.deps.join(",")}&to=${chosen.hash}`));
    return { ...shown, history, chosen, patches: diff?.patches };
  }

  function documentParts({ value, history, chosen, patches }) {
    const choose = (hash) => attempt(() => {
      version = hash;
      return showObject();
    });
    const restore = () => attempt(async () => {
      await ask("POST", path(at.kind, at.collection, at.key), { op: "restore", heads: [chosen.hash] });
      version = undefined;
      setText(document.getElementById("news"), "The document is as it was then.");
      await showObject();
    });
    const entries = history.versions.map((one) => el("button", { type: "button", "aria-pressed": String(one.hash === chosen?.hash), on: { click: () => choose(one.hash) } },
      el("span", {}, one.time_seconds ? when(one.time_seconds * 1000) : "at an unknown time"), el("span", { class: "mono muted" }, one.hash.slice(0, 8)),
      el("span", { class: "small muted" }, count(one.operations, "operation")), el("span", { class: "mono muted" }, `by ${one.actor.slice(0, 6)}`)));
    return [
      chosen && el("div", { class: "row wrap spread" }, el("p", { class: "pill wait" }, `as of ${when(chosen.time_seconds * 1000)}`),
        el("div", { class: "row" }, el("button", { type: "button", on: { click: () => choose(undefined) } }, "Show the newest"), el("button", { type: "button", class: "primary", on: { click: restore } }, "Restore this version"))),
      ...content(value),
      chosen && el("div", {}, el("h3", {}, "What this version changed"), el("ul", { class: "patches" }, patches.slice(0, 100).map(patchLine))),
      el("div", {}, el("h3", {}, "History"), el("p", { class: "small muted" }, `The newest first${history.next ? `, the last ${PAGE}` : ""}. Choose one to see the document as it was.`), el("div", { class: "history", id: "history" }, entries)),
    ].filter(Boolean);
  }

  const SHOWN = {
    document: documentParts,
    register: ({ state, value, siblings, policy }) => [
      state === "conflict" ? el("p", {}, el("a", { href: hashOf("conflicts") }, "Several values at once: decide")) : el("p", { class: "big" }, readable(value)),
      siblings.length > 1 && el("div", { class: "versions" }, siblings.map((sibling) => el("div", { class: "version" }, el("p", { class: "value" }, readable(sibling.value)), el("p", { class: "small muted" }, when(sibling.written_ms))))),
      el("p", { class: "muted small" }, `${count(siblings.length, "value")} kept, read under the policy ${policy}`),
    ].filter(Boolean),
    counter: ({ value }) => el("p", { class: "big" }, value),
    "bounded-counter": ({ value, rights }) => [
      el("p", { class: "big" }, value),
      el("table", {}, el("thead", {}, el("tr", {}, el("th", {}, "Who may lower it"), el("th", {}, "by how much, asking nobody"))),
        el("tbody", {}, rights.map((holder) => el("tr", {}, el("td", { class: "mono" }, holder.origin.slice(0, 8)), el("td", { class: "number" }, holder.rights))))),
    ],
    flag: ({ value }) => el("p", { class: "big" }, value ? "enabled" : "disabled"),
    "disable-wins-flag": ({ value }) => el("p", { class: "big" }, value ? "enabled" : "disabled"),
    set: setParts,
    "remove-wins-set": setParts,
    map: ({ entries, size, next }) => [
      el("table", {}, el("thead", {}, el("tr", {}, el("th", {}, "Key"), el("th", {}, "Holds"))), el("tbody", {}, entries.map(fieldRow))),
      el("p", { class: "muted small" }, `${count(size, "key")}${next ? `, the first ${entries.length} shown` : ""}`),
    ],
    other: (shown) => el("pre", {}, JSON.stringify(shown, null, 2)),
  };

  function setParts({ elements, size, next }) {
    return [el("div", { class: "chips" }, elements.map((element) => el("span", { class: "chip" }, readable(element)))),
      el("p", { class: "muted small" }, `${count(size, "element")}${next ? `, the first ${elements.length} shown` : ""}`)];
  }

  return { node, show: () => attempt(show) };
}

/** A key of a map, with what is under it. */
function fieldRow({ key, holds }) {
  const parts = holds.map((held) => {
    const shown = held.value ?? held.size ?? held.siblings?.map((sibling) => sibling.value);
    return el("div", {}, el("span", { class: "muted small" }, `${held.kind} `), readable(shown));
  });
  return el("tr", {}, el("td", {}, key), el("td", {}, parts));
}

/** A document as JSON, and long texts in it as texts. */
function content(value) {
  const texts = Object.entries(value ?? {}).filter(([, held]) => typeof held === "string" && held.includes("\n"));
  const rest = Object.fromEntries(Object.entries(value ?? {}).filter(([name]) => !texts.some(([text]) => text === name)));
  const parts = texts.map(([name, text]) => el("div", {}, el("p", { class: "label" }, name), el("pre", { class: "text" }, text)));
  if (texts.length === 0 || Object.keys(rest).length > 0) parts.push(el("pre", {}, JSON.stringify(rest, null, 2)));
  return parts;
}

function patchLine(patch) {
  const { action, path } = patch;
  const at = el("span", { class: "mono muted" }, path || "/");
  if (action === "splice") {
    return el("li", {}, at, " at ", patch.position, ": ", patch.delete ? el("del", {}, `${patch.delete} removed `) : "", patch.insert ? el("ins", {}, readable(patch.insert)) : "");
  }
  const { action: _action, path: _path, conflict: _conflict, ...rest } = patch;
  return el("li", {}, at, ` ${action} `, el("span", { class: "mono" }, JSON.stringify(rest)));
}
