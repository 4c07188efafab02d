// The tree: who descends from whom in the shown run, at the shown instant.

import { h, setText } from "../dom.js";
import { counted, elapsed, instant, number, short, utc } from "../format.js";
import { ask, value } from "../store.js";
import * as time from "../time.js";
import { gestures } from "../tree/gestures.js";
import { individualPanel } from "../tree/individual.js";
import { drawTree, lineAt } from "../tree/picture.js";
import { MARGIN, viewport } from "../tree/viewport.js";

const AGAIN_MS = 1000;
const MOVED_MS = 60;
const chosen = { colour: "", extinct: false };
const HELP = "Drag to move, wheel to zoom rows, shift and wheel to zoom time. Keys: arrows move, + and − zoom rows, < and > time, 0 shows all, N and P choose the next and previous line.";

export function treeView(rest) {
  const port = viewport();
  const canvas = h("canvas", { class: "tree", tabindex: "0", role: "application", "aria-label": "Tree", "aria-describedby": "tree-help" });
  const status = h("p", { class: "count", role: "status" });
  const under = h("p", { class: "hint under" });
  const empty = h("div", { class: "empty" });
  const colour = h("select", { onchange: (event) => { chosen.colour = event.target.value; request(); } });
  const extinct = h("input", { type: "checkbox", onchange: (event) => { chosen.extinct = event.target.checked; request(); } });
  extinct.checked = chosen.extinct;
  const key = h("span", { class: "tree-key" });
  const whole = h("button", { type: "button", onclick: () => { port.whole(); request(); } }, "Whole tree");
  const panel = individualPanel((id) => choose(id), zoomTo);
  const bar = h("form", { class: "filters", "aria-label": "Drawing", onsubmit: (event) => event.preventDefault() },
    h("label", {}, "Colour ", colour), key, h("label", { class: "check" }, extinct, " show lines that died out"), whole);
  const frame = h("div", { class: "tree-frame" }, canvas);
  const element = h("section", { class: "split wide-left", "aria-label": "Tree" },
    h("div", { class: "left" }, bar, status, empty, frame, under, h("p", { class: "hint", id: "tree-help" }, HELP)), panel.element);
  let tree = null;
  let hovered = -1;
  let selected = rest ?? null;
  let asked = "";
  let busy = false;
  let wanted = false;
  let timer = null;
  let gone = false;
  let runName = null;

  new ResizeObserver(([entry]) => {
    Object.assign(port, { width: Math.round(entry.contentRect.width), height: Math.round(entry.contentRect.height) });
    request();
  }).observe(frame);

  gestures(canvas, port, {
    moved: () => { draw(); later(MOVED_MS); },
    chosen: (px, py) => { const place = lineAt(port, tree, px, py); if (place >= 0) choose(tree.lines.id[place]); },
    over: (px, py) => { hovered = px < 0 ? -1 : lineAt(port, tree, px, py); draw(); },
    beside: (step) => besides(step),
    clear: () => { selected = null; panel.clear(); },
  });

  function question() {
    const run = time.run();
    if (!run || port.width < 40) return null;
    const { width, height } = port.inner();
    const parameters = { run: run.name, colour: chosen.colour, extinct: chosen.extinct ? "1" : null, width: Math.round(width), height: Math.round(height), at: time.isLive() ? null : Math.round(time.at()) };
    if (tree?.rows && run.name === runName) {
      const { from, to, top, bottom } = port.view();
      Object.assign(parameters, { from: Math.floor(from), to: Math.ceil(to), top: top * port.rows, bottom: bottom * port.rows });
    }
    return parameters;
  }

  /** Ask for what is to be seen now; of questions that come meanwhile the last one is asked afterwards. */
  async function request() {
    clearTimeout(timer);
    timer = null;
    const parameters = question();
    if (!parameters || gone) return;
    if (busy) {
      wanted = true;
      return;
    }
    busy = true;
    asked = JSON.stringify([parameters.run, parameters.at, parameters.extinct, parameters.colour]);
    const answer = await ask("/api/tree", parameters);
    busy = false;
    if (gone) return;
    if (answer.error && tree?.rows && runName === parameters.run) {
      // What was shown stays.
      setText(status, answer.error);
      later(AGAIN_MS);
      return;
    }
    // The time axis is that of the whole run, so that a tree of the past keeps its place.
    const first = !tree?.rows || runName !== parameters.run;
    tree = answer;
    runName = parameters.run;
    if (answer.rows) Object.assign(port, { rows: answer.rows, from: answer.from, to: Math.max(answer.to, answer.from + 1) });
    show();
    if (first && answer.rows) {
      port.whole();
      if (selected) panel.show(selected, lineOf(selected));
    }
    if (wanted || (first && answer.rows)) {
      wanted = false;
      request();
    } else if (!answer.complete) later(AGAIN_MS);
  }

  function later(ms) {
    timer ??= setTimeout(request, ms);
  }

  function lineOf(id) {
    const place = tree?.lines?.id.indexOf(id) ?? -1;
    return place < 0 ? null : { id, leaves: tree.lines.leaves[place], extinct: tree.lines.extinct[place], top: tree.lines.top[place], bottom: tree.lines.bottom[place] };
  }

  function choose(id) {
    selected = id;
    history.replaceState(null, "", `#tree/${encodeURIComponent(id)}`);
    panel.show(id, lineOf(id));
    draw();
  }

  function zoomTo(line) {
    const room = (line.bottom - line.top) * 0.05;
    port.showRows({ top: (line.top - room) / port.rows, bottom: (line.bottom + room) / port.rows });
    request();
    canvas.focus();
  }

  function besides(step) {
    const lines = tree?.lines;
    if (!lines?.id.length) return;
    const seen = lines.id.map((_, place) => place).filter((place) => { const y = port.y(lines.row[place]); return y >= MARGIN.top && y <= port.height - MARGIN.bottom; }).sort((a, b) => lines.row[a] - lines.row[b]);
    if (!seen.length) return;
    const now = seen.indexOf(lines.id.indexOf(selected));
    const next = now < 0 ? (step > 0 ? 0 : seen.length - 1) : Math.min(Math.max(now + step, 0), seen.length - 1);
    choose(lines.id[seen[next]]);
  }

  function draw() {
    const run = time.run();
    if (!tree?.rows || !run) return;
    drawTree(canvas, port, tree, { selected, hovered, start: run.oldest, at: time.isLive() ? null : tree.at });
    setText(under, hovered >= 0 && tree.lines?.id[hovered] !== undefined ? about(hovered, run) : "\u00a0");
  }

  function about(place, run) {
    const { lines } = tree;
    const length = time.length();
    const known = lines.value[place] === null ? "" : `, ${(chosen.colour || "generation").replaceAll("_", " ")} ${number(lines.value[place])}`;
    return `${tree.individual} ${lines.id[place]}: born ${elapsed(time.since(lines.birth[place]), length)}, ${lines.alive[place] ? "lives" : "died"}${known}; its clade has ${number(lines.leaves[place])} in the tree, ${number(lines.extinct[place])} died out`;
  }

  function show() {
    const there = Boolean(tree.rows);
    empty.hidden = there;
    frame.classList.toggle("waiting", !there);
    if (tree.error || !there) empty.replaceChildren(...emptyText());
    const names = tree.colours ?? ["generation"];
    if (colour.dataset.names !== names.join()) {
      colour.dataset.names = names.join();
      colour.replaceChildren(...names.map((name) => h("option", { value: name }, name.replaceAll("_", " "))));
    }
    colour.value = names.includes(chosen.colour) ? chosen.colour : names[0];
    if (there) {
      key.replaceChildren(h("i", { "aria-hidden": "true" }), h("span", {}, tree.range ? `${short(tree.range[0])} to ${short(tree.range[1])}` : "not known"));
      const run = time.run();
      const when = instant(time.since(tree.at), time.length());
      const parts = [
        `${counted(tree.living, tree.individual)} ${tree.living === 1 ? "lives" : "live"} at ${when}`, `${number(tree.individuals)} were born or named until then`, `${number(tree.drawn)} are in the tree`,
        tree.complete ? null : `reading, ${counted(tree.events, "event")} so far`,
        tree.two_parents ? "drawn along first parents" : null,
        tree.released_until ? `lines that died out before ${utc(tree.released_until).slice(11, 19)} are only counted` : null, tree.problem || null, ...(tree.notes ?? []),
      ];
      setText(status, parts.filter(Boolean).join("; "));
    } else setText(status, tree.complete || tree.error || tree.problem || !tree.events ? "" : `Reading the births of this run: ${counted(tree.events, "event")} so far`);
    draw();
  }

  function emptyText() {
    if (tree.error || tree.problem) return [h("h2", {}, "No tree"), h("p", { class: "error" }, tree.error ?? tree.problem)];
    if (tree.individuals) return [h("h2", {}, "Nobody lives"), h("p", {}, "At the shown instant nobody of this run lives. Choose another one, or show the lines that died out.")];
    if (!tree.complete && (tree.events || !value("source", {}).live)) return [h("h2", {}, "Reading the births")];
    return [h("h2", {}, tree.complete ? "No births in this run" : "No births so far"), h("p", {}, "The tree is drawn from births that name a parent: those of cells (evolutionary_events) and of kernels (kernel_geometry).")];
  }

  function update() {
    const parameters = question();
    if (!parameters) {
      empty.hidden = false;
      empty.replaceChildren(...(value("source", {}).problem ? [h("h2", {}, "It cannot be read"), h("p", {}, "There is no run in what could be read.")]
        : [h("h2", {}, "No run yet"), h("p", {}, "The tree of a run is drawn as soon as its first events arrive.")]));
      return;
    }
    const now = JSON.stringify([parameters.run, parameters.at, parameters.extinct, parameters.colour]);
    if (parameters.run !== runName) port.whole();
    if (now !== asked || !tree) request();
    else draw();
  }

  return { element, update, leave() { gone = true; clearTimeout(timer); } };
}
