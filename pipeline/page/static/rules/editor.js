// A plain text area made fit for rule files: line numbers, indentation by keys, and marks where the server found problems.

import { h } from "../dom.js";

const INDENT = "  ";

/** `first` is the number of the first line. `onInput` is called after each change, `onRun` for Ctrl+Enter. */
export function codeEditor({ label, onInput, onRun }) {
  const gutter = h("div", { class: "gutter", "aria-hidden": "true" });
  const marks = h("div", { class: "marks", "aria-hidden": "true" });
  const area = h("textarea", { spellcheck: "false", autocapitalize: "off", autocomplete: "off", wrap: "off", "aria-label": label, "aria-describedby": "editor-keys" });
  const keys = h("p", { class: "hint", id: "editor-keys" }, "Tab indents, Shift+Tab takes it back; Escape, then Tab, leaves the text. Ctrl+Enter tries it.");
  const inner = h("div", { class: "code" }, gutter, h("div", { class: "paper" }, marks, area));
  const element = h("div", { class: "editor" }, inner, keys);
  let first = 1;
  let leaving = false;
  let problems = [];

  function draw() {
    const count = area.value.split("\n").length;
    const bad = new Set(problems.map((each) => each.line));
    if (gutter.childElementCount !== count || gutter.dataset.first !== String(first)) {
      gutter.dataset.first = String(first);
      inner.style.height = `calc(${Math.max(count, 6) + 1} * 1.45em + 1.4rem)`;
      gutter.replaceChildren(...Array.from({ length: count }, (_, place) => h("span", {}, String(first + place))));
    }
    [...gutter.children].forEach((each, place) => { each.className = bad.has(first + place) ? "wrong" : ""; });
    marks.replaceChildren(...problems.filter((each) => each.line >= first && each.line < first + count).map((each) => {
      const mark = h("i", {});
      mark.style.top = `calc(${each.line - first} * var(--line))`;
      mark.style.left = `${Math.max((each.column ?? 1) - 1, 0)}ch`;
      const line = area.value.split("\n")[each.line - first] ?? "";
      mark.style.width = `${Math.max(line.length - (each.column ?? 1) + 1, 1)}ch`;
      return mark;
    }));
    scroll();
  }

  function scroll() {
    gutter.style.transform = `translateY(${-area.scrollTop}px)`;
    marks.style.transform = `translate(${-area.scrollLeft}px, ${-area.scrollTop}px)`;
  }

  /** Put a text in place of a part, such that the browser can undo it. */
  function insert(text, from = area.selectionStart, to = area.selectionEnd) {
    area.setSelectionRange(from, to);
    if (!document.execCommand(text ? "insertText" : "delete", false, text)) {
      area.setRangeText(text, from, to, "end");
      changed();
    }
  }

  const lineStart = (at) => area.value.lastIndexOf("\n", at - 1) + 1;

  function indent(back) {
    const { selectionStart: from, selectionEnd: to, value } = area;
    if (from === to && !back) return insert(INDENT.slice((from - lineStart(from)) % INDENT.length));
    const begin = lineStart(from);
    const lines = value.slice(begin, to).split("\n");
    const moved = lines.map((line) => (back ? line.replace(/^ {1,2}/, "") : line ? INDENT + line : line)).join("\n");
    if (moved === lines.join("\n")) return undefined;
    insert(moved, begin, to);
    area.setSelectionRange(from === to ? Math.max(begin, from + moved.length - (to - begin)) : begin, begin + moved.length);
    return undefined;
  }

  function changed() {
    draw();
    onInput();
  }

  area.addEventListener("keydown", (event) => {
    if (event.key === "Escape") leaving = true;
    else if (event.key === "Tab" && !leaving && !event.ctrlKey && !event.altKey && !event.metaKey) {
      event.preventDefault();
      indent(event.shiftKey);
    } else if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      onRun();
    } else if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      const line = area.value.slice(lineStart(area.selectionStart), area.selectionStart);
      insert(`\n${line.match(/^ */)[0]}${/:\s*$/.test(line) ? INDENT : ""}`);
    } else if (event.key !== "Shift") leaving = false;
  });
  area.addEventListener("blur", () => { leaving = false; });
  area.addEventListener("input", changed);
  area.addEventListener("scroll", scroll);

  return {
    element,
    get text() { return area.value; },
    set(text, firstLine = 1) {
      first = firstLine;
      problems = [];
      area.value = text;
      area.scrollTop = 0;
      draw();
    },
    show(found) {
      problems = found.filter((each) => each.line !== null);
      area.setAttribute("aria-invalid", String(found.length > 0));
      draw();
    },
    /** Move to a place of the whole file. */
    goTo(line, column) {
      const lines = area.value.split("\n");
      const place = Math.min(Math.max(line - first, 0), lines.length - 1);
      const at = lines.slice(0, place).reduce((sum, each) => sum + each.length + 1, 0) + Math.min((column ?? 1) - 1, lines[place].length);
      area.focus();
      area.setSelectionRange(at, at);
      area.scrollTop = Math.max(place - 6, 0) * parseFloat(getComputedStyle(area).lineHeight);
    },
    focus: () => area.focus(),
  };
}
