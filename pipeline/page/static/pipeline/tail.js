// The newest messages of one topic, as astrocyte tap shows them, with its filter; up to the shown instant.

import { h, setText } from "../dom.js";
import { counted, instant } from "../format.js";
import { ask, value } from "../store.js";
import * as time from "../time.js";

const MOST = 200;
const AGAIN_MS = 1000;
const TYPED_MS = 250;

export function tailPanel() {
  const title = h("h3");
  const where = h("input", { type: "search", class: "expression", placeholder: "value > 3 and type == 'A'", spellcheck: "false", "aria-describedby": "tail-error", oninput: () => again(TYPED_MS) });
  const pause = h("button", { type: "button", onclick: () => { paused = !paused; show(); if (!paused) again(0, true); } });
  const close = h("button", { type: "button", onclick: shut }, "Close");
  const error = h("pre", { class: "error", id: "tail-error", role: "alert", hidden: true });
  const status = h("p", { class: "count", role: "status" });
  const list = h("ol");
  const element = h("section", { class: "panel tail-panel", "aria-label": "Messages of a topic", hidden: true },
    h("div", { class: "tail-head" }, title, h("div", { class: "buttons" }, pause, close)),
    h("form", { class: "filters", onsubmit: (event) => event.preventDefault() }, h("label", { class: "grow" }, "Where ", where)), error, status,
    h("div", { class: "tail", tabindex: "0", role: "region", "aria-label": "Messages" }, list));
  let topic = null;
  let opener = null;
  let paused = false;
  let timer = null;
  let busy = false;
  let stale = false;
  let asked = "";
  let after = null;
  let events = [];
  let looked = 0;

  /** The shown instant by the clock of Kafka, in microseconds; null if it is the newest. */
  const instant = () => time.writtenAt();
  const now = () => JSON.stringify([topic, where.value.trim(), instant()]);
  const follows = () => value("source", {}).live && instant() === null && !paused;

  function open(name, from) {
    if (name !== topic) where.value = "";
    topic = name;
    opener = from;
    paused = false;
    element.hidden = false;
    setText(title, name);
    again(0, true);
    element.scrollIntoView({ block: "nearest" });
    where.focus({ preventScroll: true });
  }

  function shut() {
    topic = null;
    element.hidden = true;
    clearTimeout(timer);
    opener?.focus();
  }

  function again(ms, anew = false) {
    if (anew) asked = "";
    clearTimeout(timer);
    timer = setTimeout(request, ms);
  }

  async function request() {
    if (topic === null) return;
    if (busy) {
      stale = true;
      return;
    }
    busy = true;
    const question = now();
    const more = question === asked && after !== null && follows();
    const answer = await ask("/api/tail", { topic, where: where.value.trim() || null, at: instant(), after: more ? JSON.stringify(after) : null });
    busy = false;
    if (topic === null) return;
    if (stale || question !== now()) {
      stale = false;
      again(0);
      return;
    }
    asked = question;
    take(answer, more);
    if (follows()) again(AGAIN_MS);
  }

  function take(answer, more) {
    const said = answer.error ?? (answer.refused ? `${where.value}\n${" ".repeat(answer.position)}^ ${answer.refused}` : "");
    error.hidden = !said;
    setText(error, said);
    where.setAttribute("aria-invalid", String(Boolean(answer.refused)));
    if (said) {
      after = null;
      return;
    }
    events = (more ? [...answer.events, ...events] : answer.events).slice(0, MOST);
    looked = (more ? looked : 0) + answer.looked;
    after = more ? { ...after, ...answer.after } : answer.after;
    list.replaceChildren(...events.map(row));
    const absent = answer.looked && answer.absent?.length ? `; ${answer.absent.join("; ")}` : "";
    const run = time.run();
    const when = instant() === null || !run ? "" : ` up to ${instant(time.since(time.at()), time.length())}`;
    setText(status, `${counted(events.length, "event")} of the newest ${counted(looked, "message")}${when}${absent}`);
    show();
  }

  function show() {
    const live = value("source", {}).live;
    pause.hidden = !live;
    setText(pause, paused ? "Go on" : "Pause");
    pause.setAttribute("aria-pressed", String(paused));
  }

  function row(each) {
    return h("li", {}, h("details", {}, h("summary", {}, each.line), h("pre", {}, pretty(each.value))));
  }

  function update() {
    if (topic !== null && !busy && !paused && now() !== asked && error.hidden) again(TYPED_MS);
  }

  return { element, open, update, leave: () => { topic = null; clearTimeout(timer); } };
}

function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}
