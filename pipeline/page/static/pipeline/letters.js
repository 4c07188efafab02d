// Dead letters: the newest with filters, and one of them whole.

import { h, keyed, setText } from "../dom.js";
import { number, utc } from "../format.js";
import { ask, changed, post, value } from "../store.js";
import * as time from "../time.js";

const MOST = 100;
const filter = { stage: "", topic: "", text: "" };

export function lettersPanel() {
  const list = h("ol", { class: "letters" });
  const none = h("p", { class: "hint" });
  const count = h("span", { class: "unit" });
  const shown = h("p", { class: "count", role: "status" });
  const stage = choice("stage", "all");
  const topic = choice("topic", "all");
  const text = h("input", { type: "search", placeholder: "reason or key", value: filter.text, oninput: (event) => set("text", event.target.value) });
  const bar = h("form", { class: "filters", "aria-label": "Filters of dead letters", onsubmit: (event) => event.preventDefault() },
    h("label", {}, "Stage ", stage), h("label", {}, "Topic ", topic), h("label", { class: "grow" }, "Search ", text));
  const element = h("section", { class: "panel", "aria-label": "Dead letters" }, h("h3", {}, "Dead letters ", count), bar, shown, none, list,
    h("p", { class: "hint" }, "astrocyte dead-letters retry sends them again, and this page if it was started with --write."));

  function choice(name) {
    return h("select", { onchange: (event) => set(name, event.target.value) });
  }

  function set(name, body) {
    filter[name] = body;
    changed();
  }

  function offer(select, names, chosen) {
    const key = names.join("\n");
    if (select.dataset.names === key) return;
    select.dataset.names = key;
    select.replaceChildren(h("option", { value: "" }, "all"), ...names.map((each) => h("option", { value: each }, each)));
    select.value = chosen;
  }

  function update() {
    const feed = value("letters", { items: [] });
    const at = time.writtenAt();
    const there = feed.items.filter((each) => at === null || each.written_ms * 1000 <= at);
    const names = (name) => [...new Set(feed.items.map((each) => each[name]).filter(Boolean))].sort();
    offer(stage, names("stage"), filter.stage);
    offer(topic, names("topic"), filter.topic);
    const words = filter.text.toLowerCase();
    const found = there.filter((each) => (!filter.stage || each.stage === filter.stage) && (!filter.topic || each.topic === filter.topic)
      && (!words || `${each.reason} ${each.key ?? ""}`.toLowerCase().includes(words)));
    const newest = found.slice(-MOST).reverse();
    bar.hidden = feed.items.length === 0;
    none.hidden = newest.length > 0;
    setText(none, there.length ? "None matches the filters." : "None: every message that was read holds an event, and every store took every row.");
    const all = value("counts", {}).letters ?? 0;
    setText(count, number(all));
    const kept = all > feed.items.length ? `, of the newest ${number(feed.items.length)} of ${number(all)}` : "";
    setText(shown, found.length ? `${number(found.length)} match${at === null ? "" : " at the shown instant"}${found.length > newest.length ? `, the newest ${number(newest.length)} are listed` : ""}${kept}` : "");
    keyed(list, newest, (each) => each.id ?? `${each.written_ms}`, row);
  }

  return { element, update };
}

function row(letter) {
  const body = h("div", { class: "whole" });
  const details = h("details", { ontoggle: () => { if (details.open && letter.id && !body.firstChild) fill(body, letter); } },
    h("summary", {}, h("b", {}, letter.stage), " ", h("code", {}, letter.topic ? `${letter.topic}[${letter.partition}]@${letter.offset}` : ""), h("span", {}, letter.reason)), body);
  return h("li", {}, details);
}

/** The letter as a whole; what the feed has of it where the page no longer keeps it. */
async function fill(body, letter) {
  body.replaceChildren(h("p", { class: "busy" }, "Looking for the letter …"));
  const found = await ask("/api/letter", { id: letter.id });
  const whole = found.error ? { ...letter, headers: [] } : found;
  const facts = [["letter", whole.id], ["reason", whole.reason], ["stage", whole.stage], ["place", whole.place], ["written", `${utc(letter.written_ms * 1000)} UTC`],
    ["timestamp", whole.timestamp], ["key", whole.key], ...whole.headers.map(([name, each]) => [`header ${name}`, each])];
  body.replaceChildren(...[
    found.error ? h("p", { class: "hint" }, found.error) : null,
    h("dl", {}, facts.filter(([, each]) => each !== null && each !== undefined && each !== "").map(([name, each]) => [h("dt", {}, name), h("dd", {}, h("code", {}, String(each)))])),
    whole.payload === null || whole.payload === undefined ? h("p", { class: "hint" }, "The letter has no value.") : h("pre", { tabindex: "0" }, whole.payload),
    whole.retry ? h("p", { class: "hint" }, `It cannot be sent again: ${whole.retry}`) : null,
    whole.page_key && !whole.retry ? sending(whole) : null].filter(Boolean));
}

/** Sends the letter's message to its topic, after a second click. */
function sending(whole) {
  const said = h("p", { role: "status" });
  const first = h("button", { type: "button", onclick: () => { first.hidden = true; sure.hidden = false; send.focus(); } }, "Send again …");
  const send = h("button", { type: "button", class: "main", onclick: go }, "Send it to its topic");
  const sure = h("div", { class: "row", hidden: true }, send, h("button", { type: "button", onclick: () => { sure.hidden = true; first.hidden = false; first.focus(); } }, "Not now"));

  async function go() {
    send.disabled = true;
    const answer = await post("/api/letter/retry", whole.page_key, { id: whole.id });
    send.disabled = false;
    const why = answer.error ?? answer.refused;
    sure.hidden = true;
    first.hidden = !why;
    said.className = why ? "error" : "good";
    said.textContent = why ?? (answer.sent ? "Sent. Its event is old: one before the watermark of its partition becomes late." : "It was sent again before.");
  }

  return h("div", {}, first, sure, said);
}
