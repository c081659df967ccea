// Text, numbers and times as people read them, and elements made of them. What others named is only ever put in as text.

/** Characters that would not be seen, or would turn others around: as in the terminal, they are shown by their number. */
const UNSEEN = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Co}\p{Cn}]/gu;

/** A name as it can be shown. */
export function shown(text) {
  return String(text).replace(UNSEEN, (c) => `\\u{${c.codePointAt(0).toString(16)}}`);
}

/** A path as it can be shown; bytes that are no text by their number. */
export function pathText(place) {
  if (!place.path_bytes) return shown(place.path);
  const bytes = Uint8Array.from(atob(place.path_bytes), (c) => c.charCodeAt(0));
  const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  let text = "";
  for (let at = 0; at < bytes.length; ) {
    let length = 4;
    for (; length > 0; length--) {
      if (at + length > bytes.length) continue;
      try {
        const part = strict.decode(bytes.subarray(at, at + length));
        // More than one character may be decoded at once: what counts is that all of it is text.
        text += shown(part);
        break;
      } catch { /* fewer bytes may be a character, or none is */ }
    }
    if (length === 0) text += `\\x${bytes[at].toString(16).padStart(2, "0")}`;
    at += Math.max(length, 1);
  }
  return text;
}

const SVG = "http://www.w3.org/2000/svg";
const SVG_TAGS = new Set(["svg", "g", "line", "path", "circle", "text", "polygon", "rect"]);

/** An element: attributes, then children; texts among them stay texts. */
export function h(tag, attributes, ...children) {
  const drawn = SVG_TAGS.has(tag) || tag === "svg:title";
  const made = drawn ? document.createElementNS(SVG, tag.replace("svg:", "")) : document.createElement(tag);
  for (const [key, value] of Object.entries(attributes ?? {})) {
    if (value !== null && value !== undefined && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.flat(9).filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

/** Makes `old` what `fresh` is, in place: what did not change keeps focus, selection, and whether it is open. */
export function morph(old, fresh) {
  if (old.nodeName !== fresh.nodeName || old.id !== fresh.id || old.nodeType !== fresh.nodeType) return old.replaceWith(fresh);
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return;
  }
  for (const { name } of [...old.attributes]) if (name !== "open" && !fresh.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of fresh.attributes) {
    if (name !== "open" && old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  const [before, after] = [[...old.childNodes], [...fresh.childNodes]];
  after.forEach((child, at) => (at < before.length ? morph(before[at], child) : old.append(child)));
  before.slice(after.length).forEach((child) => child.remove());
}

const digits = new Intl.NumberFormat("en");

export const number = (count) => digits.format(count);
export const counted = (count, one, many) => `${number(count)} ${count === 1 ? one : many}`;

/** Bytes in words. */
export function size(bytes) {
  const units = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let [value, unit] = [bytes, 0];
  while (value >= 1024 && unit < units.length - 1) [value, unit] = [value / 1024, unit + 1];
  return unit === 0 ? counted(bytes, "byte", "bytes") : `${value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0)} ${units[unit]}`;
}

/** Bytes in words, exact for whoever points at them. */
export const bytes = (count) => h("data", { value: count, title: `${number(count)} bytes` }, size(count));

/** How far the agent's clock is ahead of the browser's. */
let ahead = 0;
export function setNow(moment) {
  ahead = millis(moment) - Date.now();
}

/** Browsers count no nanoseconds. */
export const millis = (moment) => Date.parse(moment.replace(/(\.\d{3})\d+/, "$1"));

function span(ms) {
  const seconds = Math.round(ms / 1000);
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} days`;
}

function relative(moment, form) {
  const since = Date.now() + ahead - millis(moment);
  if (form === "for") return `for ${span(Math.max(since, 0))}`;
  if (since < -1500) return `in ${span(-since)}`;
  return since < 3000 ? "just now" : `${span(since)} ago`;
}

/** A moment as distance from now; `form` "for": since when something lasts. */
export function when(moment, form = "ago") {
  const exact = new Date(millis(moment)).toLocaleString();
  return h("time", { datetime: moment, title: exact, "data-form": form }, relative(moment, form));
}

/** Lets all distances go on. */
export function tick() {
  for (const time of document.querySelectorAll("time")) {
    const text = relative(time.dateTime, time.dataset.form);
    if (time.textContent !== text) time.textContent = text;
  }
}

/** A name or a path, whole for whoever points at it. */
export const named = (text, kind = "name") => h("bdi", { class: kind, title: shown(text) }, shown(text));
export const path = (place) => h("bdi", { class: "path", title: pathText(place) }, pathText(place));

/** Parts of a line, with a dot between those that are there; a list is one part. */
export function dotted(...parts) {
  return parts.filter(Boolean).flatMap((part, at) => (at ? [" · ", part] : [part]));
}
