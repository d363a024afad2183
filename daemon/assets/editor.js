// A text field on a note that others edit at the same time. What is typed is sent as a splice of the version that was
// on the screen, one at a time; what arrives meanwhile is shown once everything typed here is on its way.

import { el } from "./page.js";

/**
 * What leads from one list of code points to another, as one replacement. Of several, it is the one that ends at the
 * caret: which of two equal letters was typed matters to who types beside it.
 */
export function difference(before, after, caret) {
  const shorter = Math.min(before.length, after.length);
  const atCaret = replacement(before, after, Math.max(0, caret - Math.max(0, after.length - before.length)));
  // The caret may have moved on since.
  const least = replacement(before, after, shorter);
  return atCaret.delete <= least.delete ? atCaret : least;
}

/** As one replacement, of which the part that is equal before it is no longer than `prefixMax`. */
function replacement(before, after, prefixMax) {
  const shorter = Math.min(before.length, after.length);
  let prefix = 0;
  while (prefix < Math.min(shorter, prefixMax) && before[prefix] === after[prefix]) prefix += 1;
  let suffix = 0;
  while (suffix < shorter - prefix && before[before.length - 1 - suffix] === after[after.length - 1 - suffix]) suffix += 1;
  return { position: prefix, delete: before.length - prefix - suffix, insert: after.slice(prefix, after.length - suffix).join("") };
}

/** Where a place of the old text is in the new one. */
function moved(offset, old, text) {
  let prefix = 0;
  const shorter = Math.min(old.length, text.length);
  while (prefix < shorter && old[prefix] === text[prefix]) prefix += 1;
  let suffix = 0;
  while (suffix < shorter - prefix && old[old.length - 1 - suffix] === text[text.length - 1 - suffix]) suffix += 1;
  if (offset <= prefix) return offset;
  if (offset >= old.length - suffix) return offset + text.length - old.length;
  return text.length - suffix;
}

/** The place of a code point in a text, in the units in which fields count. */
const offsetOf = (text, position) => Array.from(text).slice(0, position).join("").length;

export class Editor {
  /** `send` takes a splice and answers with the version that is on the screen then. */
  constructor(region, field, backdrop, send) {
    Object.assign(this, { region, field, backdrop, send });
    this.base = undefined;
    this.latest = undefined;
    this.seen = 0;
    this.sending = undefined;
    field.addEventListener("input", (event) => {
      if (!event.isComposing) this.flush();
    });
    field.addEventListener("compositionend", () => this.flush());
    field.addEventListener("scroll", () => {
      this.backdrop.scrollTop = field.scrollTop;
    });
  }

  /** Takes what the region shows now. */
  show(note, applied) {
    this.latest = { note, applied };
    this.adopt();
  }

  adopt() {
    const { note, applied } = this.latest;
    const isClean = !this.sending && (this.base === undefined || this.field.value === this.base.text);
    // What was typed here is part of what is applied from this count on; what is older would take it back for a moment.
    if (!isClean || applied < this.seen) return;
    const own = note.cursors.find(({ region }) => region === this.region);
    if (this.field.value !== note.text) {
      const { value, selectionStart, selectionEnd } = this.field;
      // Where something was typed last is known exactly, for it is part of what was sent.
      const to = (offset) => (own && offset === this.typedAt ? offsetOf(note.text, own.position) : moved(offset, value, note.text));
      const [start, end] = [to(selectionStart), to(selectionEnd)];
      this.field.value = note.text;
      this.field.setSelectionRange(start, end);
    }
    this.typedAt = own && offsetOf(note.text, own.position);
    this.base = { text: note.text, heads: note.heads };
    this.draw(note);
  }

  /** Sends what was typed since the last time, until nothing is left. */
  flush() {
    this.sending ??= this.sendAll();
    return this.sending;
  }

  async sendAll() {
    try {
      // What asked for it has to see that it is under way first.
      await undefined;
      while (this.base !== undefined && this.field.value !== this.base.text) {
        const text = this.field.value;
        const caret = Array.from(text.slice(0, this.field.selectionStart)).length;
        const splice = difference(Array.from(this.base.text), Array.from(text), caret);
        const { heads, applied } = await this.send({ heads: this.base.heads, ...splice });
        this.base = { text, heads };
        this.typedAt = offsetOf(text, splice.position + Array.from(splice.insert).length);
        this.seen = applied;
      }
    } catch (error) {
      // Nothing was written: what the region has is shown again.
      this.base = undefined;
      this.failed?.(error);
    } finally {
      this.sending = undefined;
    }
    if (this.latest) this.adopt();
  }

  /** Types at the end, as a person would, for who watches. The field's own caret goes along. */
  async type(text, pause) {
    const end = this.field.value.length;
    this.field.setSelectionRange(end, end);
    for (const letter of Array.from(text)) {
      const at = this.field.selectionStart;
      this.field.setRangeText(letter, at, at, "end");
      const sent = this.flush();
      await (pause ? new Promise((wake) => setTimeout(wake, pause)) : sent);
    }
    await this.flush();
    this.field.scrollTop = this.field.scrollHeight;
  }

  /** Draws where the others typed last, behind the text. */
  draw(note) {
    const points = Array.from(note.text);
    const parts = [];
    let from = 0;
    const others = note.cursors.filter((cursor) => cursor.region !== this.region);
    for (const cursor of others.sort((one, other) => one.position - other.position)) {
      parts.push(points.slice(from, cursor.position).join(""), el("span", { class: "caret", data: { region: cursor.region, name: cursor.region } }));
      from = cursor.position;
    }
    // A line break at the end takes no room without something after it.
    parts.push(`${points.slice(from).join("")}\u200b`);
    this.backdrop.replaceChildren(...parts);
    this.backdrop.scrollTop = this.field.scrollTop;
  }
}
