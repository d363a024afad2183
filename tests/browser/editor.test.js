// What the editor sends, without a browser: a splice leads from one text to the other, and is the one that was typed.

import { test } from "node:test";
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

// Files of the page are modules for browsers, which need no declaration to be that; Node.js goes by the name.
const directory = mkdtempSync(join(tmpdir(), "comity-editor-"));
for (const name of ["editor", "page"]) {
  const text = readFileSync(new URL(`../../daemon/assets/${name}.js`, import.meta.url), "utf8");
  writeFileSync(join(directory, `${name}.mjs`), text.replace("./page.js", "./page.mjs"));
}
const { difference } = await import(join(directory, "editor.mjs"));
rmSync(directory, { recursive: true });

const apply = (text, splice) => [...text.slice(0, splice.position), ...splice.insert, ...text.slice(splice.position + splice.delete)];

test("a splice leads from any text to any other, wherever the caret is", () => {
  const texts = [];
  for (const letters of ["ab", "a😀"].map((text) => Array.from(text))) {
    let longer = [[]];
    for (let length = 0; length < 5; length += 1) {
      texts.push(...longer);
      longer = longer.flatMap((text) => letters.map((letter) => [...text, letter]));
    }
  }
  for (const before of texts) {
    for (const after of texts) {
      for (let caret = 0; caret <= after.length; caret += 1) {
        assert.deepEqual(apply(before, difference(before, after, caret)), after);
      }
    }
  }
});

test("of equal letters the one before the caret is the one that was typed", () => {
  assert.deepEqual(difference(Array.from("aa"), Array.from("aaa"), 1), { position: 0, delete: 0, insert: "a" });
  assert.deepEqual(difference(Array.from("aa"), Array.from("aaa"), 3), { position: 2, delete: 0, insert: "a" });
  assert.deepEqual(difference(Array.from("aaa"), Array.from("aa"), 1), { position: 1, delete: 1, insert: "" });
});

test("a caret that has moved on since takes nothing along", () => {
  assert.deepEqual(difference(Array.from("one two"), Array.from("one two!"), 0), { position: 7, delete: 0, insert: "!" });
  assert.deepEqual(difference(Array.from("one two"), Array.from("one wo"), 0), { position: 4, delete: 1, insert: "" });
});
