// The dashboard of one replica: who is behind and why, what people have to decide, what was set aside, what is there.
// The place in the page's address says what is shown: #SPACE/VIEW, and for objects #SPACE/objects/KIND/COLLECTION/KEY.

import { makeObjects } from "./objects.js";
import { access, ask, attempt, count, duration, el, follow, readable, setChildren, setText, sparkline } from "./page.js";

const byId = (id) => document.getElementById(id);
const VIEWS = { overview: "Overview", conflicts: "Conflicts", journal: "Journal", objects: "Objects" };
/** How often figures that no feed tells of are asked for. */
const LOOK_AGAIN_MS = 2000;
/** After a change, this long until it is looked at: several often come together. */
const REST_MS = 150;
const PAGE = 50;
/** Spaces to choose from; any other is shown by its address. */
const SPACES_MAX = 200;
/** Looks between two of the list of spaces, which seldom changes. */
const LOOKS_PER_LIST = 15;

const known = { status: undefined, spaces: [], space: undefined, regions: {}, lag: {}, step: 5000, peers: [], report: undefined, conflicts: [] };
let unfollow = () => {};

// Names.

const regionOf = (replica) => known.regions[replica] ?? (replica === known.status?.replica ? known.status.region : undefined);
const shortId = (id) => id.slice(0, 8);
const nameOf = (replica) => (replica ? regionOf(replica) ?? shortId(replica) : "somebody");

/** What gives a replica its colour. */
function colour(replica) {
  const region = regionOf(replica);
  if (["eu", "us", "ap"].includes(region)) return { region };
  const at = (known.report?.members ?? []).findIndex((member) => member.replica === replica);
  return { hue: Math.max(at, 0) % 4 };
}

const when = (ms) => new Date(ms).toLocaleString([], { dateStyle: "medium", timeStyle: "medium" });
const placeText = ({ kind, collection, key, path }) => `${collection}/${key}${path.length ? ` › ${path.join(" › ")}` : ""} (${kind})`;
const inSpace = (path) => `v1/spaces/${known.space}${path}`;
const hashOf = (view, ...parts) => `#${[known.space, view, ...parts].map(encodeURIComponent).join("/")}`;

function where() {
  const [space, view, ...rest] = location.hash.slice(1).split("/").map(decodeURIComponent);
  return { space, view: VIEWS[view] ? view : "overview", rest };
}

// The views. Each is made once when it is chosen, and told when something has changed.

function overview() {
  const waiting = el("ul", { class: "waiting", id: "waiting" });
  const members = el("div", { class: "members", id: "members" });
  const facts = el("dl", { class: "facts" });
  const spaceFacts = el("dl", { class: "facts" });
  const node = [
    el("section", { class: "card", "aria-labelledby": "waiting-title" }, el("h2", { id: "waiting-title" }, "What is waiting, and why"), waiting),
    el("div", { class: "columns" },
      el("section", { class: "card", "aria-labelledby": "members-title" }, el("h2", { id: "members-title" }, "Regions and peers"),
        el("p", { class: "muted small" }, "Change sets that somebody lacks, over the last minutes."), members),
      el("div", { class: "stack" },
        el("section", { class: "card", "aria-labelledby": "replica-title" }, el("h2", { id: "replica-title" }, "This replica"), facts),
        el("section", { class: "card", "aria-labelledby": "space-title" }, el("h2", { id: "space-title" }, "This space"), spaceFacts))),
  ];
  const pairs = (list, rows) => setChildren(list, rows, () => rows.flatMap(([name, value, isCode]) => [el("dt", {}, name), el("dd", { class: isCode ? "mono" : undefined }, value)]));
  const show = () => {
    const { status, report } = known;
    if (!status || !report) return;
    const found = reasons();
    setChildren(waiting, found, () => (found.length ? found : [["good", "Nothing waits. Everything that is known of is here, and every connected peer has what is here."]])
      .map(([kind, text]) => el("li", { class: kind }, el("span", { class: "mark", "aria-hidden": "true" }), el("span", {}, text))));
    setChildren(members, [report.members, report.peers, report.lanes.map(({ owner, lacks }) => [owner, lacks]), known.lag, known.peers, known.regions], () => report.members.map(member));
    pairs(facts, [
      ["Region", status.region ?? "none is set"], ["Id", status.replica, true], ["Version", status.version],
      ["Running for", duration(status.uptime_seconds * 1000)], ["Spaces", status.spaces], ["Damage", status.damage ?? "none found"],
    ]);
    pairs(spaceFacts, [
      ["Name", report.name], ["Id", report.id, true], ["State digest", report.digest, true], ["Standing here", report.standing], ["Members", report.members.length],
      ["Lanes", report.lanes.length], ["Change sets", report.lanes.reduce((sum, { applied }) => sum + applied, 0)],
    ]);
  };
  return { node, show };
}

function reasons() {
  const { status, report } = known;
  const found = [];
  if (status.damage) found.push(["bad", `Stored data was damaged; peers are asked for what is missing: ${status.damage}`]);
  if (!status.ready) found.push(["wait", `This daemon is not ready: ${status.waits_for}`]);
  if (!report.may_write) found.push(["wait", `This replica ${report.standing}, so it does not write here.`]);
  for (const lane of report.lanes) {
    const owner = nameOf(lane.owner);
    if (lane.frozen) found.push(["bad", `What ${owner} writes is not followed any more: ${lane.frozen}`]);
    if (lane.staged > 0 && lane.waits_for) {
      const of = report.lanes.find(({ lane: id }) => id === lane.waits_for.lane)?.owner;
      found.push(["wait", `${count(lane.staged, "change set")} of ${owner} arrived and may not be shown before entry ${lane.waits_for.entry} of ${of ? nameOf(of) : "a lane that is not known yet"}, which their author had seen.`]);
    } else if (lane.lacks > 0) {
      const from = lane.parent ? `they come from ${nameOf(lane.parent)}` : "nobody who has them sends them at present";
      found.push(["wait", `${count(lane.lacks, "change set")} of ${owner} are known of and not here: ${from}.`]);
    }
  }
  for (const { replica, lacks } of report.peers) {
    if (lacks > 0) found.push(["wait", `${nameOf(replica)} lacks ${count(lacks, "change set")} of what is here; they are on their way.`]);
  }
  for (const { replica } of report.members) {
    if (replica !== status.replica && !report.peers.some((peer) => peer.replica === replica)) {
      found.push(["wait", `${nameOf(replica)} is not connected to this replica. Nothing is lost: it gets what it lacks when it is, from here or from others.`]);
    }
  }
  if (!report.confirmed && report.may_write) found.push(["wait", "No other writer has heard of this incarnation yet: sets and flags where removing wins cannot be written."]);
  const stalled = report.stalled_by.filter((replica) => replica !== status.replica);
  if (stalled.length) found.push(["wait", `Traces of what was removed are kept until ${stalled.map(nameOf).join(", ")} ${stalled.length > 1 ? "say" : "says"} to have seen it.`]);
  if (report.quarantined > 0) found.push(["bad", `${count(report.quarantined, "change")} of documents ${report.quarantined > 1 ? "were" : "was"} refused by the document library, and set aside in the journal.`]);
  return found;
}

function member({ replica, role }) {
  const { status, report } = known;
  const isSelf = replica === status.replica;
  const peer = report.peers.find((one) => one.replica === replica);
  const lacksHere = report.lanes.filter(({ owner }) => owner === replica).reduce((sum, { lacks }) => sum + lacks, 0);
  const traffic = known.peers.find((one) => one.replica === replica);
  const samples = known.lag[replica] ?? { here: [], there: [] };
  const lag = (title, now, values) => el("div", { class: "lag" }, el("div", { class: "row" }, el("span", { class: "muted" }, title), el("b", { class: "number" }, now)),
    sparkline(values, { shownMax: 120 }));
  const state = isSelf ? el("span", { class: "pill" }, "this one") : el("span", { class: `pill ${peer ? "good" : "wait"}` }, peer ? "connected" : "not connected");
  const bytes = (number) => (number < 10_000 ? `${number} B` : number < 10_000_000 ? `${Math.round(number / 1000)} kB` : `${Math.round(number / 1_000_000)} MB`);
  return el("div", { class: "member", data: colour(replica) },
    el("div", { class: "who" }, el("span", { class: "region-dot", "aria-hidden": "true" }), el("span", { class: "name" }, nameOf(replica), state),
      el("span", { class: "small muted" }, `${role} · `, el("span", { class: "mono" }, shortId(replica)), traffic ? ` · ${bytes(traffic.udp_bytes_sent)} out, ${bytes(traffic.udp_bytes_received)} in` : "")),
    isSelf ? undefined : lag("missing there", peer ? peer.lacks : "?", samples.there),
    isSelf ? undefined : lag("missing here", lacksHere, samples.here));
}

function conflicts() {
  const list = el("div", { class: "conflicts", id: "conflicts" });
  const node = el("section", { class: "card", "aria-labelledby": "conflicts-title" }, el("h2", { id: "conflicts-title" }, "To be decided by a person"),
    el("p", { class: "muted" }, "What was written at the same time and has no policy that decides. A decision replaces what is shown here, and nothing newer; what it replaces goes to the journal."), list);
  const show = () => setChildren(list, [known.space, known.conflicts, known.regions], () => (known.conflicts.length ? known.conflicts.map(conflict)
    : el("p", { class: "empty" }, "There is nothing to decide.")));
  return { node, show };
}

function conflict({ location: place, matter, policy, siblings = [], kinds = [], state }) {
  const seen = siblings.map(({ dot }) => dot);
  const resolve = (choice, from) => attempt(async () => {
    await ask("POST", inSpace("/conflicts/resolve"), { location: place, seen, ...choice });
    setText(byId("news"), `Resolved: ${placeText(place)}`);
    from.closest("main").focus();
    await refresh();
  });
  const keep = (choice, what) => el("button", { type: "button", class: "primary", "aria-label": `Keep this one: ${what}`, on: { click: (event) => resolve(choice, event.target) } }, "Keep this one");
  const versions = siblings.map((sibling) => el("div", { class: "version", data: sibling.author ? colour(sibling.author) : { hue: 3 } },
    el("div", {}, el("p", { class: "label" }, `${sibling.region ?? nameOf(sibling.author)}, ${when(sibling.written_ms)}`), el("p", { class: "value" }, readable(sibling.value))),
    keep({ keep: sibling.dot }, readable(sibling.value))));
  versions.push(...kinds.map((kind) => el("div", { class: "version" }, el("p", { class: "value" }, `a ${kind}`), keep({ kind, state }, `a ${kind}`))));
  if (siblings.length) {
    const other = el("input", { "aria-label": "Another value", placeholder: "Text, or any JSON", autocomplete: "off" });
    const submit = (event) => {
      event.preventDefault();
      if (other.value) resolve({ value: parsed(other.value) }, event.target);
      else other.focus();
    };
    versions.push(el("div", { class: "version" }, el("p", { class: "label" }, "Or write another"), el("form", { on: { submit } }, other, el("button", { type: "submit" }, "Write"))));
  }
  const why = matter === "kinds" ? "several kinds under one key" : `${count(siblings.length, "value")} at once, policy ${policy}`;
  return el("div", { class: "conflict" }, el("div", {}, el("p", { class: "place" }, placeText(place)), el("p", { class: "small muted" }, why)), el("div", { class: "versions" }, versions));
}

/** JSON where it is some, a text otherwise. */
function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

const REASONS = {
  "sibling-replaced": "one of several, replaced by",
  "sibling-removed": "one of several, removed by",
  "removal-won": "added, while somebody removed it:",
  "kind-removed": "one of several kinds, removed by",
  "branch-lost": "written on a branch that could not be kept, by",
  "document-removed": "an edit of a document that was removed by",
  "change-refused": "a change of a document that was refused",
};

function journal() {
  const list = el("div", { class: "entries", id: "journal" });
  const totals = el("p", { class: "muted" });
  const more = el("button", { type: "button", class: "hidden", on: { click: () => attempt(load) } }, "More");
  const node = el("section", { class: "card", "aria-labelledby": "journal-title" }, el("h2", { id: "journal-title" }, "Set aside, not lost"), totals, list, more);
  let entries = [];
  let next;
  const load = async () => {
    const page = await ask("GET", inSpace(`/journal?limit=${PAGE}${next ? `&after=${encodeURIComponent(next)}` : ""}`));
    entries = next ? [...entries, ...page.entries] : page.entries;
    next = page.next ?? undefined;
    more.classList.toggle("hidden", !next);
    const { entries: all, pruned } = page.totals;
    setText(totals, `What a decision replaced or a removal took along, the oldest first: ${count(all, "entry", "entries")}${pruned ? `, and ${pruned} forgotten since` : ""}.`);
    setChildren(list, [entries, known.regions], () => (entries.length ? entries.map(aside) : el("p", { class: "empty" }, "Nothing was set aside.")));
  };
  const show = () => {
    // A page that was opened further stays as it is; the first one is kept current.
    if (entries.length <= PAGE) {
      next = undefined;
      attempt(load);
    }
  };
  return { node, show };
}

function aside(entry) {
  const restore = (event) => attempt(async () => {
    await ask("POST", inSpace("/journal/restore"), { location: entry.location, dot: entry.dot });
    setText(byId("news"), `Restored: ${entry.kind === "document" ? placeText(entry.location) : readable(entry.value)}`);
    event.target.textContent = "Restored";
  });
  const canRestore = entry.reason !== "change-refused";
  const isChange = entry.kind === "document";
  const reason = `${REASONS[entry.reason] ?? entry.reason} ${entry.by_author ? nameOf(entry.by_author) : ""}${entry.detail ? `: ${entry.detail}` : ""}`;
  return el("div", { class: "entry", data: entry.author ? colour(entry.author) : { hue: 3 } }, el("span", { class: "region-dot", "aria-hidden": "true" }),
    el("span", { class: "value" }, isChange ? "a change of the document" : readable(entry.value)),
    el("span", { class: "small muted" }, `${placeText(entry.location)} · written in ${nameOf(entry.author)}, ${when(entry.written_ms)} · ${reason}`),
    canRestore ? el("button", { type: "button", "aria-label": isChange ? "Restore the document" : `Restore ${readable(entry.value)}`, on: { click: restore } }, "Restore") : undefined);
}

const MAKERS = { overview, conflicts, journal, objects: () => makeObjects({ inSpace, hashOf, where, nameOf, colour, when }) };
let shown = {};

function showView() {
  const { space, view, rest } = where();
  if (space && space !== known.space && known.spaces.some(({ id }) => id === space)) choose(space);
  const isOther = shown.view !== view || shown.space !== known.space;
  if (isOther) {
    shown = { view, space: known.space, ...MAKERS[view]() };
    byId("main").replaceChildren(...[shown.node].flat());
    document.title = `${VIEWS[view]} · ${known.status?.region ?? "Comity"}`;
  }
  showTabs();
  shown.show(rest);
}

function showTabs() {
  const { view } = where();
  const open = known.conflicts.length;
  setChildren(byId("tabs"), [known.space, view, open], () => Object.entries(VIEWS).map(([name, title]) => el("a", { href: hashOf(name), "aria-current": name === view ? "page" : undefined }, title,
    name === "conflicts" && open ? el("span", { class: "badge" }, open >= PAGE ? `${PAGE}+` : open) : undefined)));
}

function showBar() {
  const { status } = known;
  setText(byId("here"), status.region ? `${status.region} · ${shortId(status.replica)}` : shortId(status.replica));
  const dot = byId("here-dot");
  delete dot.dataset.region;
  Object.assign(dot.dataset, colour(status.replica));
  byId("ready").className = `pill ${status.ready ? "good" : "wait"}`;
  setText(byId("ready"), status.ready ? "ready" : "catching up");
  byId("space-choice").classList.toggle("hidden", known.spaces.length < 2);
  setChildren(byId("spaces"), [known.spaces, known.space], () => known.spaces.map(({ id, name }) => el("option", { value: id, selected: id === known.space }, name || shortId(id))));
}

// Looking, and being told.

let isLooking = false;
let isWanted = false;

/** Asks for all that is shown besides the view's own. Once more when something changed meanwhile. */
async function refresh() {
  if (isLooking) {
    isWanted = true;
    return;
  }
  isLooking = true;
  try {
    do {
      isWanted = false;
      await look();
    } while (isWanted);
  } catch (error) {
    if (error.status === 401) return showAccess();
    byId("ready").className = "pill bad";
    setText(byId("ready"), "no answer");
    console.debug("a look failed", error);
  } finally {
    isLooking = false;
  }
}

let looks = 0;

/** The spaces to choose from, with the one that the address names. */
async function listSpaces() {
  const isDue = looks % LOOKS_PER_LIST === 0 || known.spaces.length === 0;
  looks += 1;
  if (isDue) known.spaces = (await ask("GET", `v1/spaces?limit=${SPACES_MAX}`)).spaces;
  const wanted = where().space;
  if (wanted && !known.spaces.some(({ id }) => id === wanted)) {
    const named = await ask("GET", `v1/spaces/${encodeURIComponent(wanted)}`).catch(() => undefined);
    if (named) known.spaces = [...known.spaces, { id: named.id, name: named.name }];
  }
  return known.spaces.find(({ id }) => id === wanted) ?? known.spaces.find(({ id }) => id === known.space) ?? known.spaces[0];
}

async function look() {
  const [status, peers, found] = await Promise.all([ask("GET", "v1/status"), ask("GET", "v1/peers"), listSpaces()]);
  Object.assign(known, { status, peers: peers.peers });
  if (!found) {
    showBar();
    byId("main").replaceChildren(el("section", { class: "card" }, el("h2", {}, "No space yet"), el("p", { class: "muted" }, "Found one with ", el("code", { class: "mono" }, "comity spaces --create NAME"), ", or join one by a ticket.")));
    document.body.dataset.ready = "true";
    return;
  }
  if (found.id !== known.space) choose(found.id);
  const space = known.space;
  const [report, overviewNow, inbox] = await Promise.all([ask("GET", inSpace("")), ask("GET", inSpace("/overview")), ask("GET", inSpace(`/conflicts?limit=${PAGE}`))]);
  // Another space may have been chosen meanwhile.
  if (space !== known.space) return;
  const before = known.report?.id === space ? known.conflicts.length : undefined;
  Object.assign(known, { report, regions: overviewNow.regions, lag: overviewNow.lag, step: overviewNow.step_ms, conflicts: inbox.conflicts });
  if (before !== undefined && before < known.conflicts.length) setText(byId("news"), `${count(known.conflicts.length, "conflict")} to decide`);
  showBar();
  showView();
  document.body.dataset.ready = "true";
}

let resting;

function changed() {
  resting ??= setTimeout(() => {
    resting = undefined;
    refresh();
  }, REST_MS);
}

/** Shows another space. */
function choose(space) {
  known.space = space;
  known.report = undefined;
  known.conflicts = [];
  unfollow();
  unfollow = follow(`v1/spaces/${space}/changes`, { event: changed, open: changed, lost: changed });
}

function showAccess() {
  unfollow();
  shown = {};
  const token = el("input", { type: "password", autocomplete: "off", "aria-label": "Token", placeholder: "comity_…" });
  const submit = (event) => {
    event.preventDefault();
    access.token = token.value.trim();
    known.space = undefined;
    refresh();
  };
  setText(byId("ready"), "a token is needed");
  byId("main").replaceChildren(el("section", { class: "card access" }, el("h2", {}, "Present a token"),
    el("p", { class: "muted" }, "This daemon lets only those in who have one. It is kept in this tab, until it is closed."),
    el("form", { on: { submit } }, token, el("button", { class: "primary", type: "submit" }, "Go on"))));
  token.focus();
  document.body.dataset.ready = "true";
}

addEventListener("hashchange", () => {
  if (known.space) {
    showView();
    byId("main").focus();
  }
});
byId("spaces").addEventListener("change", (event) => {
  location.hash = `#${event.target.value}/${where().view}`;
  refresh();
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) refresh();
});
setInterval(() => {
  if (!document.hidden && known.space) refresh();
}, LOOK_AGAIN_MS);
refresh();
