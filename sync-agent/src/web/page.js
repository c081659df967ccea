// The page: the agent's status, drawn anew whenever it changes.

import { KINDS, details, drawing, isSilent, pairs, trouble } from "/map.js";
import { bytes, counted, dotted, h, millis, morph, named, number, path, pathText, setNow, shown, size, tick, when } from "/words.js";

/** Nothing heard for so long: the agent is gone. It is heard of every five seconds. */
const LOST_MS = 12_000;
/** A connection that broke may come back at once. */
const BROKEN_MS = 2_500;
/** How often is asked where nobody can listen. */
const ASK_MS = 3_000;
/** Links and machines of which it is said what is the matter; the table has all. */
const MATTERS = 10;

let told = null;
let title = "driftless";

// ---- what is the matter, in words ----

function verdict(status, summary) {
  const apart = summary.peers - summary.connected;
  const paused = status.folders.filter((folder) => folder.state === "paused").length;
  const parts = [
    [summary.unavailable, "bad", `${counted(summary.unavailable, "folder", "folders")} unavailable`],
    [summary.stopped, "bad", `${counted(summary.stopped, "folder", "folders")} stopped`],
    [summary.problems, "bad", `${counted(summary.problems, "path", "paths")} failed`],
    [summary.conflicts, "bad", counted(summary.conflicts, "conflict", "conflicts")],
    [apart, "warn", `${number(apart)} of ${counted(summary.peers, "peer", "peers")} away`],
    [summary.behind_files, "warn", `${counted(summary.behind_files, "file", "files")} behind`],
    [paused, "warn", `${counted(paused, "folder", "folders")} paused`],
  ].filter(([count]) => count > 0);
  if (summary.folders === 0) return { tone: "idle", text: "No folders yet: name some in agent.toml" };
  if (summary.in_sync) return { tone: "ok", text: "Everything is in sync" };
  if (parts.length === 0) return { tone: "idle", text: "Not in sync yet: not everything was compared" };
  return { tone: parts.some(([, tone]) => tone === "bad") ? "bad" : "warn", text: parts.map(([, , text]) => text).join(", ") };
}

function head(status, summary) {
  const { tone, text } = verdict(status, summary);
  title = `${tone === "ok" ? "" : "● "}${shown(status.name)}: ${text}`;
  const waiting = summary.behind_bytes > 0 && ["still to exchange: ", bytes(summary.behind_bytes)];
  return h("header", {},
    h("p", { class: "muted" }, dotted(h("strong", {}, named(status.name)), ["driftless ", shown(status.version)], ["runs ", when(status.since, "for")])),
    h("h1", { class: tone }, text),
    h("p", { class: "muted" }, dotted(
      counted(summary.folders, "folder", "folders"),
      summary.peers > 0 ? `${number(summary.connected)} of ${counted(summary.peers, "peer", "peers")} connected` : "no peers",
      waiting)),
    status.notices.length > 0 && h("ul", { class: "notices", "aria-label": "Notices of the agent" },
      status.notices.map((notice) => h("li", {}, h("bdi", {}, shown(notice))))));
}

// ---- machines and links ----

function machines(status, now) {
  if (status.machines.length === 0) return h("section", {}, h("h2", {}, "Machines and links"), h("p", { class: "muted" }, "No machine is known yet."));
  const links = pairs(status);
  const ill = links.map((pair) => [pair, trouble(pair)]).filter(([, told]) => told).map(([pair, told]) =>
    h("li", {}, h("span", { class: pair.connected ? "warn" : "bad" }, told.text), told.reasons.map((reason) => h("small", {}, reason))));
  const silent = status.machines.slice(1).filter((machine) => isSilent(machine, now));
  const quiet = silent.map((machine) => h("li", {}, `${shown(machine.name ?? machine.id)} `, machine.heard ? ["was last heard of ", when(machine.heard)] : "was not heard of since this agent began"));
  const untold = Math.max(ill.length - MATTERS, 0) + Math.max(quiet.length - MATTERS, 0);
  return h("section", { "aria-labelledby": "machines" },
    h("h2", { id: "machines" }, "Machines and links"),
    h("div", { class: "card" },
      drawing(status, links, room(), now),
      links.length > 0 && legend(links),
      status.machines.length === 1 && h("p", { class: "muted" }, "This machine is alone: no other one was heard of."),
      ill.length + quiet.length > 0 ? h("ul", { class: "told" }, ill.slice(0, MATTERS), quiet.slice(0, MATTERS), untold > 0 && h("li", { class: "muted" }, `and ${number(untold)} more`))
        : links.length > 0 && h("p", { class: "muted" }, links.length === 1 ? "The link is well." : `All ${number(links.length)} links are well.`),
      links.length > 0 && h("details", {}, h("summary", {}, links.length === 1 ? "The link in a table" : `All ${number(links.length)} links in a table`), linkTable(links))));
}

/** Pixels of width that a drawing in a card may have. */
function room() {
  const inside = (element, ...edges) => edges.reduce((left, edge) => left - parseFloat(getComputedStyle(element)[edge]), element.clientWidth);
  const main = document.getElementById("page");
  const card = main.querySelector(".card") ?? main.appendChild(h("div", { class: "card" }));
  return Math.max(Math.floor(inside(card, "paddingLeft", "paddingRight")), 240);
}

function legend(links) {
  const key = (kind, text) => h("li", {}, h("svg", { width: 26, height: 10, viewBox: "0 0 26 10", "aria-hidden": "true" },
    h("g", { class: kind === "fails" ? "link" : `link ${kind}` }, kind === "fails" ? h("g", { class: "fails" }, h("path", { d: "M1 5 H18" }), h("polygon", { points: "26,5 17,1 17,9" }))
      : [h("line", { class: "way", x1: 1, y1: 5, x2: kind === "good" ? 18 : 25, y2: 5 }), kind === "good" && h("polygon", { points: "26,5 17,1 17,9" })])), text);
  const has = (kind) => links.some((pair) => pair.kind === kind);
  return h("ul", { class: "legend", "aria-label": "Legend" },
    ["good", "lossy", "unmeasured", "broken"].filter((kind) => kind === "good" || has(kind)).map((kind) => key(kind, KINDS[kind])),
    links.some((pair) => pair.connected && pair.fails.length) && key("fails", "cannot call in this direction"),
    h("li", {}, "arrow: from who called to who was called"));
}

function linkTable(links) {
  const rows = links.map((pair) => {
    const facts = details(pair);
    return row([
      ["Link", [named(pair.aName), " – ", named(pair.bName)]],
      ["State", h("span", { class: { good: "ok", lossy: "warn", broken: "bad" }[pair.kind] }, KINDS[pair.kind].split(":")[0])],
      ["Called", facts.callers],
      ["Round trip", facts.quality ?? unknown()],
      ["Goodput", facts.goodput ?? unknown()],
      ["Folders", facts.folders || "none"],
    ]);
  });
  return table(["Link", "State", "Called", "Round trip, loss", "Goodput", "Folders"], rows);
}

const unknown = () => h("span", { class: "muted", title: "not known" }, "–");

/** Roles are said aloud: on a phone rows are drawn as blocks, and are rows all the same. */
function table(heads, rows) {
  return h("table", { role: "table" },
    h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, heads.map((text) => h("th", { role: "columnheader", scope: "col" }, text)))),
    h("tbody", { role: "rowgroup" }, rows));
}

function row(cells) {
  return h("tr", { role: "row" }, cells.map(([caption, content], at) =>
    h(at ? "td" : "th", { role: at ? "cell" : "rowheader", scope: at ? null : "row", "data-caption": caption }, h("div", {}, content))));
}

// ---- folders ----

const TONES = { watching: "ok", syncing: "busy", scanning: "busy", starting: "busy", paused: "warn", stopped: "bad", unavailable: "bad" };
const ACTIONS = { create: "created", update: "changed", delete: "deleted", move: "moved", meta: "attributes changed", conflict: "conflict" };

const STAYING = { young: "too young", "not-quiet": "changed lately", open: "with conflicts", peers: "at too few peers", obstacle: "with an obstacle", excluded: "excluded", later: "later" };

function archive(one) {
  const { days, last, scrub } = one;
  const staying = Object.entries(days?.staying ?? {}).map(([reason, count]) => `${number(count)} ${STAYING[reason] ?? shown(reason)}`);
  const ran = last && [when(last.at), ": ", last.error ? h("span", { class: "bad" }, h("bdi", {}, shown(last.error)))
    : [counted(last.moved, "day", "days"), ", ", bytes(last.bytes), last.failed > 0 && h("span", { class: "bad" }, `, ${number(last.failed)} failed`)]];
  const facts = [
    ["Archived", [counted(one.archived, "day", "days"), one.displaced > 0 && `, ${counted(one.displaced, "old copy", "old copies")} kept`]],
    ["Waiting", days ? [counted(days.waiting, "day", "days"), ", ", bytes(days.waiting_bytes)] : "not counted yet"],
    days?.oldest && ["Oldest not archived", path(days.oldest)],
    staying.length > 0 && ["Staying", staying.join(", ")],
    ["Last run", ran ?? "none yet"],
    one.next && ["Next run", when(one.next)],
    one.archived > 0 && ["Read again", [scrub.oldest ? ["all since ", when(scrub.oldest)] : "not yet", scrub.never > 0 && `, ${counted(scrub.never, "day", "days")} never`,
      scrub.repaired > 0 && `, ${counted(scrub.repaired, "file", "files")} repaired`,
      scrub.damaged > 0 && h("span", { class: "bad" }, `, ${counted(scrub.damaged, "file", "files")} damaged`)]],
  ];
  return h("details", { open: Boolean(one.unavailable || scrub.damaged || last?.error) }, h("summary", {}, "Old days in ", path(one.cold), one.doing === "waiting" ? "" : ` (${shown(one.doing)})`),
    one.unavailable && h("p", { class: "bad" }, h("bdi", {}, shown(one.unavailable))),
    h("dl", {}, facts.filter(Boolean).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))));
}

function folder(one) {
  const { watches, kept, problems } = one;
  const short = watches.needed !== null && watches.set < watches.needed;
  const facts = [
    ["Paths", one.paths === null ? "not counted yet" : number(one.paths)],
    one.bytes !== null && ["Size", bytes(one.bytes)],
    ["Last change", one.last_change ? when(one.last_change) : "none seen yet"],
    kept && ["Kept versions", kept.count ? [number(kept.count), ", ", bytes(kept.bytes)] : "none"],
    ["Watched", h("span", { class: short ? "warn" : null }, watches.needed === null ? "not known yet"
      : [short ? `${number(watches.set)} of ${counted(watches.needed, "directory", "directories")}` : watches.needed === 1 ? "1 directory" : `all ${number(watches.needed)} directories`,
        watches.limit !== null && `, limit ${number(watches.limit)}`])],
  ];
  return h("article", { class: "card", "aria-label": `Folder ${shown(one.name)}` },
    h("h3", {}, named(one.name), " ", h("span", { class: `badge ${TONES[one.state]}` }, one.state)),
    h("p", { class: "muted" }, path(one)),
    one.why && h("p", { class: "bad" }, h("bdi", {}, shown(one.why))),
    h("dl", {}, facts.filter(Boolean).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))),
    one.archive && archive(one.archive),
    one.peers.length ? table(["Peer", "Connection", "Lacking here", "Lacking there", "Last exchange"], one.peers.map(peer))
      : h("p", { class: "muted" }, "Shared with nobody: name its peers in agent.toml."),
    one.peers.some((other) => other.transfers.length) && transfers(one.peers),
    one.conflicts > 0 && h("details", { open: true }, h("summary", { class: "bad" }, counted(one.conflicts, "conflict", "conflicts")),
      h("ul", { class: "paths" }, one.in_conflict.map((place) => h("li", {}, path(place)))),
      h("p", { class: "muted" }, more(one.conflicts, one.in_conflict.length), h("code", {}, `driftless conflicts ${quoted(pathText(one))}`), " lists them, ", h("code", {}, "driftless resolve"), " decides.")),
    problems.total > 0 && h("details", { open: true }, h("summary", { class: "bad" }, `${counted(problems.total, "path", "paths")} failed`),
      h("ul", { class: "paths" }, problems.listed.map((problem) => h("li", {}, path(problem), h("span", { class: "muted" }, ` ${shown(problem.step)}: `), h("bdi", {}, shown(problem.error))))),
      problems.total > problems.listed.length && h("p", { class: "muted" }, more(problems.total, problems.listed.length))));
}

const more = (total, listed) => (total > listed && listed > 0 ? `And ${number(total - listed)} more. ` : "");
const quoted = (text) => (/^[\w./@%+=:,-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);

function peer(one) {
  const state = one.link === "connected"
    ? [h("span", { class: "ok" }, "connected "), when(one.since, "for"), h("small", {}, dotted(one.direction === "in" ? ["called from ", shown(one.address)] : ["at ", shown(one.address)], quality(one.quality)))]
    : [h("span", { class: "bad" }, "away "), one.since && when(one.since, "for"), h("small", {}, dotted(one.why && h("bdi", {}, shown(one.why)),
      one.address && shown(one.address), one.next_try ? ["next try ", when(one.next_try)] : "it has to call"))];
  return row([
    ["Peer", [named(one.name), h("small", {}, one.mode)]],
    ["Connection", state],
    ["Lacking here", lag(one.lacking_here, one.mode === "send-only")],
    ["Lacking there", lag(one.lacking_there, one.mode === "receive-only")],
    ["Last exchange", one.last_sync ? when(one.last_sync) : "none yet"],
  ]);
}

const quality = (one) => one && details({ loss: one.loss, rtt: one.rtt_ms, connected: true, goodput: null, callers: new Set(), folders: [] }).quality;

function lag(behind, never) {
  if (!behind) return never ? h("span", { class: "muted", title: "it may not send that" }, "does not apply") : h("span", { class: "muted" }, "not known yet");
  if (behind.files === 0 && behind.bytes === 0) return h("span", { class: "ok" }, "nothing");
  return [h("span", { class: "warn" }, counted(behind.files, "file", "files"), ", ", bytes(behind.bytes)),
    h("small", {}, dotted(behind.since && when(behind.since, "for"), behind.oldest && ["oldest ", path(behind.oldest)]))];
}

function transfers(peers) {
  const items = peers.flatMap((one) => one.transfers.map((file) => h("li", {}, path(file), h("span", { class: "muted" }, ` ${file.direction === "in" ? "from" : "to"} ${shown(one.name)}, ${size(file.bytes)} of ${size(file.total)}`),
    h("progress", { max: Math.max(file.total, 1), value: file.bytes, "aria-label": `${pathText(file)}: ${size(file.bytes)} of ${size(file.total)}` }))));
  return h("div", {}, h("h4", {}, "On their way"), h("ul", { class: "paths" }, items));
}

function recent(status) {
  const all = status.folders.flatMap((one) => one.recent.map((event) => ({ ...event, folder: one.name })));
  all.sort((a, b) => millis(b.at) - millis(a.at));
  return h("section", { "aria-labelledby": "recent" }, h("h2", { id: "recent" }, "Recent activity"),
    all.length === 0 ? h("p", { class: "muted" }, "Nothing was brought to this machine since the agent began.")
      : h("ol", { class: "card recent" }, all.slice(0, 20).map((event) => h("li", {}, when(event.at),
        h("span", { class: event.action === "conflict" ? "bad" : null }, ACTIONS[event.action] ?? shown(event.action)),
        path(event), h("span", { class: "muted" }, "from ", named(event.from), " in ", named(event.folder))))));
}

function page({ status, summary, now }) {
  return h("main", { id: "page" },
    head(status, summary),
    machines(status, millis(now)),
    h("section", { "aria-labelledby": "folders" }, h("h2", { id: "folders" }, "Folders"),
      status.folders.length ? status.folders.map(folder) : h("p", { class: "muted" }, "None. ", h("code", {}, "driftless agent init"), " writes an agent.toml with examples.")),
    recent(status));
}

// ---- staying in touch ----

let [heardAt, brokeAt, silence] = [Date.now(), null, null];

function show() {
  if (told) morph(document.getElementById("page"), page(told));
}

function heard(fresh) {
  told = fresh;
  setNow(fresh.now);
  show();
  alive();
}

function alive() {
  [heardAt, brokeAt, silence] = [Date.now(), null, null];
  presence();
}

/** Is what stands here still so? */
function presence() {
  const now = Date.now();
  const lost = now - heardAt > LOST_MS || (brokeAt !== null && now - brokeAt > BROKEN_MS);
  const banner = document.getElementById("lost");
  const live = document.getElementById("live");
  banner.hidden = !lost && silence === null;
  const known = told ? ` What stands here was known at ${new Date(heardAt).toLocaleTimeString()}.` : "";
  const text = lost ? `Connection to the agent lost.${known} It is tried again.` : silence === null ? "" : `${shown(silence)}.${known}`;
  if (banner.textContent !== text) banner.textContent = text;
  document.body.classList.toggle("stale", text !== "");
  document.title = text === "" ? title : `✕ ${title} (not connected)`;
  live.textContent = text === "" ? "live" : "not connected";
}

function listen() {
  const source = new EventSource("/events");
  source.addEventListener("status", (event) => heard(JSON.parse(event.data)));
  source.addEventListener("beat", (event) => { setNow(JSON.parse(event.data)); if (silence === null) alive(); else heardAt = Date.now(); });
  source.addEventListener("silence", (event) => { silence = JSON.parse(event.data); presence(); });
  source.onerror = () => {
    brokeAt ??= Date.now();
    // Where too many listen, it is asked instead; then listening is tried again.
    if (source.readyState === EventSource.CLOSED) ask().finally(() => setTimeout(listen, ASK_MS));
  };
}

async function ask() {
  try {
    const answer = await fetch("/api/status", { signal: AbortSignal.timeout(LOST_MS) });
    if (!answer.ok) throw new Error(await answer.text());
    heard(await answer.json());
  } catch {
    brokeAt ??= Date.now();
    presence();
  }
}

let width = 0;
new ResizeObserver(([entry]) => {
  if (Math.round(entry.contentRect.width) === width) return;
  width = Math.round(entry.contentRect.width);
  // Not within the observer: what is drawn may change the size again.
  setTimeout(show);
}).observe(document.body);
setInterval(() => { tick(); presence(); }, 1000);
listen();
