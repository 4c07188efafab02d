// A picture in space of the shown instant: asked for while it is open, and drawn on a canvas.

import { rgb, scaleOf } from "../charts/colours.js";
import { h, setText } from "../dom.js";
import { counted } from "../format.js";
import { ask, value } from "../store.js";
import * as time from "../time.js";

const AGAIN_MS = 1000;
// A live broker has its events read once more for a picture: that is done when somebody opens it.
const opened = {};

/**
 * `draw(context, answer, width, height, colours)` paints, with `colours.of(name)` of the style sheet and
 * `colours.mixed(share)` on the scale of that name; `say(answer)` gives the figures of the heading.
 */
export function scenePanel({ kind, title, unit, note, scale, draw, say, height }) {
  const canvas = h("canvas", { class: "scene", role: "img", "aria-label": title });
  canvas.style.height = `${height}px`;
  const legend = h("div", { class: "legend" });
  const told = h("p", { class: "note" });
  const body = h("div", {}, legend, canvas, told, h("p", { class: "note" }, note));
  const toggle = h("button", { type: "button", class: "extra", onclick: () => { opened[kind] = !isOpen(); show(); } });
  const element = h("figure", { class: "chart scene-panel" },
    h("figcaption", {}, h("div", { class: "title" }, h("h3", {}, title), h("span", { class: "unit" }, unit), toggle)), body);
  let answer = null;
  let asked = "";
  let busy = false;
  let timer = null;
  let gone = false;
  let lost = "";
  let width = 0;

  const isOpen = () => opened[kind] ?? !value("source", {}).live;
  const wanted = () => JSON.stringify([time.run()?.name, time.isLive() ? null : Math.round(time.at())]);
  new ResizeObserver(([entry]) => { width = Math.round(entry.contentRect.width); paint(); }).observe(canvas);

  function show() {
    body.hidden = !isOpen();
    setText(toggle, isOpen() ? "Close" : "Open");
    toggle.setAttribute("aria-expanded", String(isOpen()));
    toggle.setAttribute("aria-label", `${isOpen() ? "Close" : "Open"}: ${title}`);
    if (isOpen() && !timer) request();
    if (isOpen()) paint();
  }

  async function request() {
    timer = null;
    const run = time.run();
    if (!run || busy || gone || !isOpen()) return;
    const now = wanted();
    if (now === asked && answer?.complete) return;
    busy = true;
    const found = await ask("/api/scene", { kind, run: run.name, at: time.isLive() ? null : Math.round(time.at()) });
    busy = false;
    asked = now;
    if (gone) return;
    // What was shown stays where the server has ended.
    lost = found.error && answer && !answer.error ? found.error : "";
    if (!lost) answer = found;
    paint();
    if (lost) return;
    if (!answer.complete && !answer.error) timer = setTimeout(request, AGAIN_MS);
    else if (wanted() !== now) request();
  }

  function paint() {
    if (!width || !answer) return;
    const ratio = devicePixelRatio || 1;
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    const context = canvas.getContext("2d");
    context.scale(ratio, ratio);
    const said = answer.error ? null : say(answer);
    if (said) draw(context, answer, width, height, coloursOf(canvas, scale));
    legend.replaceChildren(...(said ?? []).map(([label, text]) => h("span", { class: "entry" }, label, " ", h("b", {}, text))));
    canvas.setAttribute("aria-label", `${title}: ${(said ?? []).map((each) => each.join(" ")).join(", ")}`);
    setText(told, lost || answer.error || answer.problem || (answer.complete ? "" : `reading, ${counted(answer.events, "event")} so far`));
    told.hidden = !told.textContent;
  }

  return { element, redraw: show, dispose() { gone = true; clearTimeout(timer); } };
}

function coloursOf(canvas, name) {
  const [style, scale] = [getComputedStyle(canvas), scaleOf(canvas, name)];
  return { of: (each) => style.getPropertyValue(`--${each}`).trim(), mixed: (share) => rgb(scale, share) };
}
