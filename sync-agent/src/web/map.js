// The map: machines on a circle, links between them. Values in, a drawing out.

import { counted, h, millis, number, shown, size } from "/words.js";

/** From this share of lost packets on a link counts as lossy. */
export const LOSSY = 0.02;
/** A machine that was not heard of for so long is drawn grey. */
const SILENT_MS = 5 * 60 * 1000;
/** With more machines than this, names stand along the rays. */
const UPRIGHT = 12;
/** With more machines than this, only this one and those with trouble have a name; the others when they are pointed at. */
const NAMED = 60;
/** With more links than this, only those with something to tell have a label. */
const LABELLED = 24;
const NAME_LENGTH = 18;

export const KINDS = {
  good: `good: less than ${LOSSY * 100} % lost`,
  lossy: `lossy: ${LOSSY * 100} % lost or more`,
  unmeasured: "connected, not measured yet",
  broken: "broken: no connection",
};

function percent(loss) {
  if (loss === 0) return "0\u00a0%";
  return loss < 0.001 ? "under 0.1\u00a0%" : `${(loss * 100).toFixed(loss < 0.1 ? 1 : 0)}\u00a0%`;
}

export const trip = (ms) => (ms < 10 ? `${ms.toFixed(1)} ms` : `${number(Math.round(ms))} ms`);

/**
 * What both ends tell, as one link for each two machines. Of its own links this machine knows by itself whether they stand; those between
 * others stand where all ends that tell say so, since what one of them said last may be minutes old.
 */
export function pairs(status) {
  const names = new Map(status.machines.map((machine) => [machine.id, machine.name]));
  const name = (id) => shown(names.get(id) ?? `${id.slice(0, 8)}…`);
  const found = new Map();
  for (const seen of status.links) {
    const [a, b] = [seen.from, seen.to].sort();
    const key = `${a} ${b}`;
    if (a === b || !names.has(a) || !names.has(b)) continue;
    const pair = found.get(key) ?? { key, a, b, aName: name(a), bName: name(b), callers: new Set(), seen: [], fails: [], answers: [] };
    found.set(key, pair);
    pair.seen.push(seen);
    if (seen.reaches?.reach === "fails") pair.fails.push({ from: seen.from, to: seen.to, why: seen.reaches.why });
    if (seen.reaches?.reach === "answers") pair.answers.push({ from: seen.from, to: seen.to });
  }
  for (const pair of found.values()) {
    const known = pair.seen.map((seen) => seen.quality).filter(Boolean);
    const worst = (key) => (known.length ? Math.max(...known.map((quality) => quality[key])) : null);
    const rates = known.map((quality) => quality.goodput).filter((rate) => rate !== null);
    const counting = pair.seen.filter((seen) => seen.from === status.id || seen.to !== status.id);
    pair.connected = counting.length > 0 && counting.every((seen) => seen.called);
    if (pair.connected) for (const seen of counting) pair.callers.add(seen.called === "out" ? seen.from : seen.to);
    [pair.rtt, pair.loss] = [worst("rtt_ms"), worst("loss")];
    pair.goodput = rates.length ? Math.min(...rates) : null;
    pair.folders = [...new Set(pair.seen.flatMap((seen) => seen.folders))].sort();
    pair.name = name;
    pair.kind = !pair.connected ? "broken" : pair.loss === null ? "unmeasured" : pair.loss >= LOSSY ? "lossy" : "good";
  }
  return [...found.values()];
}

/** What is the matter with a link, in a sentence and its reasons; nothing if nothing is. */
export function trouble(pair) {
  const both = `${pair.aName} and ${pair.bName}`;
  const reasons = pair.fails.map((fail) => `${pair.name(fail.from)} cannot call ${pair.name(fail.to)}: ${shown(fail.why)}`);
  if (!pair.connected) return { text: `${both} are not connected`, reasons };
  if (pair.kind === "lossy") return { text: `${both}: ${percent(pair.loss)} of the packets are lost, ${trip(pair.rtt)}`, reasons };
  return reasons.length ? { text: `${both} are connected, but only one can call the other`, reasons } : null;
}

/** Everything about a link, for whoever points at it and for the table. */
export function details(pair) {
  const callers = [...pair.callers].map((id) => `${pair.name(id)} called ${pair.name(id === pair.a ? pair.b : pair.a)}`);
  return {
    callers: pair.connected ? callers.join(", ") : "nobody",
    quality: pair.loss === null || !pair.connected ? null : `${trip(pair.rtt)}, ${percent(pair.loss)} lost`,
    goodput: pair.goodput === null ? null : `${size(pair.goodput)}/s`,
    folders: pair.folders.map(shown).join(", "),
  };
}

export const isSilent = (machine, now) => !machine.heard || now - millis(machine.heard) > SILENT_MS;

/** Where everybody stands: this machine on top, the others by their names. */
function places(machines, width) {
  const count = machines.length;
  const radial = count > UPRIGHT;
  const narrow = width < 480;
  const height = count < 3 ? 130 : radial ? Math.min(width, 640) : narrow ? Math.max(width * 0.86, 260) : Math.min(width * 0.62, 400);
  const longest = Math.min(Math.max(...machines.map((machine) => label(machine, { narrow, radial }).length)), NAME_LENGTH) * (narrow && radial ? 6 : 7) + 18;
  // Where there is little room names stand above and below, else beside.
  const margin = radial ? longest : narrow ? 48 : Math.min(longest, width * 0.3);
  const [rx, ry] = [Math.min(Math.max(width / 2 - margin, 40), count === 2 ? 220 : width), Math.max(height / 2 - (radial ? margin : 34), 40)];
  const at = machines.map((machine, index) => {
    // Two stand side by side, one in the middle.
    const turn = count === 1 ? null : count === 2 ? Math.PI * (index + 1) : (2 * Math.PI * index) / count - Math.PI / 2;
    const [x, y] = turn === null ? [0, 0] : [Math.cos(turn) * rx, Math.sin(turn) * ry];
    return { machine, turn, x: width / 2 + x, y: height / 2 + y };
  });
  // An odd number has nobody at the bottom: nothing is left empty there.
  const lowest = Math.max(...at.map((place) => place.y));
  return { radial, narrow, at, height: count < 3 ? height : Math.round(lowest + height / 2 - ry) };
}

function label(machine, { narrow, radial }) {
  const name = shown(machine.name ?? `${machine.id.slice(0, 8)}…`);
  const most = !narrow ? NAME_LENGTH : radial ? 10 : 14;
  return name.length > most ? `${name.slice(0, most - 1)}…` : name;
}

/** The drawing, for so many pixels of width. */
export function drawing(status, links, width, now) {
  const [own, ...others] = status.machines;
  others.sort((a, b) => (a.name ?? a.id).localeCompare(b.name ?? b.id));
  const plan = places([own, ...others], width);
  const radius = !plan.radial ? 9 : plan.narrow ? 4 : 5;
  const at = new Map(plan.at.map((place) => [place.machine.id, place]));
  const taken = plan.at.map((place) => ({ x: place.x - radius - 3, y: place.y - radius - 3, w: 2 * radius + 6, h: 2 * radius + 6 }));
  const ill = new Set(links.filter((pair) => trouble(pair)).flatMap((pair) => [pair.a, pair.b]));
  const named = (machine) => plan.at.length <= NAMED || machine.id === own.id || ill.has(machine.id);
  const ways = links.flatMap((pair) => along(at.get(pair.a), at.get(pair.b)));
  const nodes = plan.at.map((place) => node(place, { plan, radius, width, now, own, taken, ways, named }));
  const rank = (pair) => ["broken", "lossy", "good", "unmeasured"].indexOf(pair.kind);
  const ordered = [...links].sort((a, b) => rank(a) - rank(b));
  const lines = ordered.map((pair) => edge(pair, at.get(pair.a), at.get(pair.b), radius));
  const labels = ordered
    .filter((pair) => links.length <= LABELLED || rank(pair) < 2)
    .map((pair) => edgeLabel(pair, at.get(pair.a), at.get(pair.b), taken));
  const bad = links.filter((pair) => pair.kind === "broken").length;
  const lossy = links.filter((pair) => pair.kind === "lossy").length;
  const told = `Map of ${counted(status.machines.length, "machine", "machines")} and ${counted(links.length, "link", "links")}: `
    + `${bad} broken, ${lossy} lossy. The list below tells the same in words.`;
  // Good ones first, so that the others lie above them.
  return h("svg", { class: plan.narrow && plan.radial ? "map dense" : "map", role: "img", "aria-label": told, width, height: plan.height, viewBox: `0 0 ${width} ${plan.height}` },
    lines.reverse(), labels, nodes);
}

function node(place, { plan, radius, width, now, own, taken, ways, named }) {
  const { machine, x, y, turn } = place;
  const [isOwn, silent] = [machine.id === own.id, machine.id !== own.id && isSilent(machine, now)];
  const text = label(machine, plan);
  const facts = [shown(machine.name ?? "a machine whose name is not known"), machine.id, ...machine.addresses.map(shown),
    isOwn ? "this machine" : machine.heard ? `heard of at ${new Date(millis(machine.heard)).toLocaleString()}` : "not heard of since this agent began"];
  const attributes = { class: "machine-name" };
  const wide = text.length * 7;
  if (plan.radial) {
    const left = Math.cos(turn) < -0.001;
    const away = radius + 6;
    const [tx, ty] = [x + Math.cos(turn) * away, y + Math.sin(turn) * away];
    const degrees = (turn * 180) / Math.PI + (left ? 180 : 0);
    Object.assign(attributes, { x: tx, y: ty, transform: `rotate(${degrees} ${tx} ${ty})`, "text-anchor": left ? "end" : "start", dy: "0.35em" });
  } else {
    const side = turn === null ? 0 : Math.cos(turn);
    if (!plan.narrow && Math.abs(side) > 0.35 && plan.height > 140) {
      const tx = x + Math.sign(side) * (radius + 7);
      Object.assign(attributes, { x: tx, y, "text-anchor": side > 0 ? "start" : "end" });
      taken.push({ x: side > 0 ? tx : tx - wide, y: y - 9, w: wide, h: 18 });
    } else {
      const inside = (tx) => Math.min(Math.max(tx, wide / 2 + 2), width - wide / 2 - 2);
      const above = turn !== null && Math.sin(turn) < -0.001;
      const levels = [y - radius - 12, y + radius + 14];
      const spots = (above ? levels : levels.reverse()).flatMap((ty) => [inside(x), inside(side < 0 ? 0 : width)].map((tx) => [tx, ty]));
      const box = ([tx, ty]) => ({ x: tx - wide / 2, y: ty - 9, w: wide, h: 18 });
      // Where the fewest links are covered; outward only where it is near enough to be this machine's.
      const cost = (spot) => ways.filter((point) => holds(box(spot), point)).length + Math.abs(spot[0] - x) / 20;
      const best = spots.reduce((one, other) => (cost(other) < cost(one) ? other : one));
      Object.assign(attributes, { x: best[0], y: best[1], "text-anchor": "middle" });
      taken.push(box(best));
    }
    attributes.dy = "0.35em";
  }
  return h("g", { class: `machine${isOwn ? " own" : ""}${silent ? " silent" : ""}` },
    h("svg:title", {}, facts.join("\n")),
    isOwn && h("circle", { class: "ring", cx: x, cy: y, r: radius + 4 }),
    h("circle", { cx: x, cy: y, r: radius }),
    named(machine) && h("text", attributes, text));
}

/** Points of a line, close to each other. */
function along(a, b) {
  const count = Math.ceil(Math.hypot(b.x - a.x, b.y - a.y) / 6);
  return Array.from({ length: count + 1 }, (_, step) => ({ x: a.x + ((b.x - a.x) * step) / count, y: a.y + ((b.y - a.y) * step) / count }));
}

const holds = (box, { x, y }) => x > box.x && x < box.x + box.w && y > box.y && y < box.y + box.h;

/** A triangle with its tip there, pointing along (dx, dy). */
function arrow(x, y, dx, dy) {
  const [long, half] = [9, 4.5];
  const points = [[x, y], [x - dx * long - dy * half, y - dy * long + dx * half], [x - dx * long + dy * half, y - dy * long - dx * half]];
  return h("polygon", { points: points.map((point) => point.map((n) => n.toFixed(1)).join(",")).join(" ") });
}

function toward(from, to) {
  const length = Math.hypot(to.x - from.x, to.y - from.y) || 1;
  return [(to.x - from.x) / length, (to.y - from.y) / length];
}

function edge(pair, a, b, radius) {
  const place = (id) => (id === pair.a ? a : b);
  const [dx, dy] = toward(a, b);
  const gap = radius + 6;
  const ends = { x1: a.x + dx * gap, y1: a.y + dy * gap, x2: b.x - dx * gap, y2: b.y - dy * gap };
  const tip = (to) => (to === pair.b ? arrow(ends.x2, ends.y2, dx, dy) : arrow(ends.x1, ends.y1, -dx, -dy));
  const facts = details(pair);
  const title = [`${pair.aName} – ${pair.bName}: ${KINDS[pair.kind]}`, facts.callers !== "nobody" && facts.callers, facts.quality, facts.goodput,
    facts.folders && `folders: ${facts.folders}`, ...pair.fails.map((fail) => `${pair.name(fail.from)} cannot call ${pair.name(fail.to)}: ${shown(fail.why)}`)];
  const parts = [h("svg:title", {}, title.filter(Boolean).join("\n")), h("line", { class: "reach", ...ends }), h("line", { class: "way", ...ends })];
  if (pair.connected) {
    parts.push(...[...pair.callers].map((caller) => tip(caller === pair.a ? pair.b : pair.a)));
    parts.push(...pair.fails.map((fail) => bent(place(fail.from), place(fail.to), gap)));
  } else {
    parts.push(...pair.fails.map((fail) => tip(fail.to)));
    parts.push(cross((a.x + b.x) / 2, (a.y + b.y) / 2));
  }
  return h("g", { class: `link ${pair.kind}` }, parts);
}

/** The direction in which nobody is reached, beside the link that there is. */
function bent(from, to, gap) {
  const [dx, dy] = toward(from, to);
  const bow = 52;
  const middle = { x: (from.x + to.x) / 2 - dy * bow, y: (from.y + to.y) / 2 + dx * bow };
  const [sx, sy] = toward(from, middle);
  const [ex, ey] = toward(middle, to);
  const [x1, y1, x2, y2] = [from.x + sx * gap, from.y + sy * gap, to.x - ex * gap, to.y - ey * gap];
  return h("g", { class: "fails" }, h("path", { d: `M${x1} ${y1} Q${middle.x} ${middle.y} ${x2} ${y2}` }), arrow(x2, y2, ex, ey));
}

function cross(x, y) {
  const half = 5;
  return h("path", { class: "cross", d: `M${x - half} ${y - half} l${2 * half} ${2 * half} m0 ${-2 * half} l${-2 * half} ${2 * half}` });
}

/** A label where it covers nothing; none where there is no room. */
function edgeLabel(pair, a, b, taken) {
  if (pair.kind === "unmeasured" || pair.kind === "broken") return null;
  const text = pair.loss >= 0.001 ? `${trip(pair.rtt)} · ${percent(pair.loss)}` : trip(pair.rtt);
  const [w, height] = [text.length * 6.2 + 4, 15];
  for (const share of [0.5, 0.42, 0.58, 0.34, 0.66, 0.27, 0.73]) {
    const [x, y] = [a.x + (b.x - a.x) * share, a.y + (b.y - a.y) * share];
    const box = { x: x - w / 2, y: y - height / 2, w, h: height };
    const covers = (other) => box.x < other.x + other.w && other.x < box.x + box.w && box.y < other.y + other.h && other.y < box.y + box.h;
    if (taken.some(covers)) continue;
    taken.push(box);
    return h("g", { class: `tag ${pair.kind}` }, h("rect", { x: box.x, y: box.y, width: w, height, rx: 4 }), h("text", { x, y, dy: "0.35em", "text-anchor": "middle" }, text));
  }
  return null;
}
