// Publishing a text to the workers, after a look at what changes in it. Only where the page was started with --write.

import { h } from "../dom.js";
import { post } from "./api.js";

const AROUND = 3;

export function publishPanel({ text, name, file, published }) {
  const button = h("button", { type: "button", onclick: show }, "Publish …");
  const panel = h("div", { class: "publish", role: "group", "aria-label": "Publish", hidden: true });
  const said = h("p", { role: "status" });
  const element = h("div", { hidden: true }, button, panel, said);

  function show() {
    const before = file()?.text ?? "";
    const wanted = text();
    const hidden = Object.keys(file()?.overridden ?? {});
    const lines = difference(before.split("\n"), wanted.split("\n"));
    const changes = lines.filter((each) => each.kind !== "same").length;
    const confirm = h("button", { type: "button", class: "main", onclick: () => send(wanted, confirm) }, "Publish to the workers");
    panel.replaceChildren(h("h3", {}, changes ? "What changes" : hidden.length ? `The text is that of the file, whose ${hidden.join(", ")} other files override now` : "The text is the one that runs"),
      h("pre", { class: "diff", tabindex: "0", "aria-label": "Difference" }, shortened(lines).map((each) => h("span", { class: each.kind }, `${{ add: "+", gone: "−", same: " ", skip: " " }[each.kind]} ${each.text}\n`))),
      h("div", { class: "row" }, confirm, h("button", { type: "button", onclick: close }, "Not now")));
    panel.hidden = false;
    said.replaceChildren();
    confirm.focus();
  }

  async function send(wanted, confirm) {
    confirm.disabled = true;
    const open = file();
    const answer = await post("publish", { name: name(), text: wanted, seen: open?.digest ?? null });
    confirm.disabled = false;
    if (answer.error) {
      said.className = "error";
      said.textContent = answer.error;
      return;
    }
    close();
    said.className = "good";
    said.textContent = `Published as ${answer.published}: workers take it with their next message of the topic rules.`;
    published();
  }

  function close() {
    panel.hidden = true;
  }

  return {
    element, close,
    set(write) { element.hidden = !write; },
    allow(valid) { button.disabled = !valid; },
  };
}

/** Lines that stay, come and go, by the longest common subsequence of what lies between equal ends. */
function difference(a, b) {
  let begin = 0;
  while (begin < a.length && begin < b.length && a[begin] === b[begin]) begin++;
  let end = 0;
  while (end < a.length - begin && end < b.length - begin && a[a.length - 1 - end] === b[b.length - 1 - end]) end++;
  const [mine, theirs] = [a.slice(begin, a.length - end), b.slice(begin, b.length - end)];
  const same = (text) => ({ kind: "same", text });
  return [...a.slice(0, begin).map(same), ...middle(mine, theirs), ...a.slice(a.length - end).map(same)];
}

function middle(a, b) {
  if (a.length * b.length > 4e6) return [...a.map((text) => ({ kind: "gone", text })), ...b.map((text) => ({ kind: "add", text }))];
  const longest = Array.from({ length: a.length + 1 }, () => new Uint32Array(b.length + 1));
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) longest[i][j] = a[i] === b[j] ? longest[i + 1][j + 1] + 1 : Math.max(longest[i + 1][j], longest[i][j + 1]);
  }
  const lines = [];
  let [i, j] = [0, 0];
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) {
      lines.push({ kind: "same", text: a[i++] });
      j++;
    } else if (i < a.length && (j >= b.length || longest[i + 1][j] >= longest[i][j + 1])) lines.push({ kind: "gone", text: a[i++] });
    else lines.push({ kind: "add", text: b[j++] });
  }
  return lines;
}

function shortened(lines) {
  const near = lines.map((_, place) => lines.slice(Math.max(place - AROUND, 0), place + AROUND + 1).some((each) => each.kind !== "same"));
  return lines.flatMap((each, place) => (near[place] ? [each] : near[place - 1] || place === 0 ? [{ kind: "skip", text: "…" }] : []));
}
