// What all charts share: a heading with the values of the shown instant, a plot that follows its width, a time axis,
// the shown instant, and what was found and planted.

import { h, keyed, s, setText } from "../dom.js";
import { elapsed, instant, short, utc } from "../format.js";
import { value } from "../store.js";
import * as time from "../time.js";
import { ticks } from "./scale.js";

export const MARGIN = { left: 46, right: 10, top: 10, bottom: 20 };
/** How long a stream is silent, in buckets and in microseconds, before it is said of when a figure is. */
const SILENT_BUCKETS = 3;
const SILENT_US = 500_000;
const hover = { at: null };
const watchers = new Set();

export const hovered = () => hover.at;

function setHover(us) {
  if (hover.at === us) return;
  hover.at = us;
  for (const watcher of watchers) watcher();
}

/** The instant whose values headings show: that under the pointer, else the shown one. */
export const readAt = () => (hover.at === null ? time.at() : time.known(hover.at));

/**
 * The bucket up to whose last event a chart of these streams is read; -1: the first event of the run alone. At the
 * newest instant of the run that is the newest one of its streams, which may have ended before others, or before the
 * last finding.
 */
export function placeOf(streams) {
  const run = time.run();
  const us = readAt();
  if (time.isFirst(us)) return -1;
  if (hover.at !== null || !time.isLive()) return time.bucketOf(us);
  const spans = value(`run/${run.name}/spans`, {});
  const newest = Math.max(...streams.map((each) => spans[each]?.[1] ?? -Infinity));
  return time.bucketOf(Number.isFinite(newest) ? newest : us);
}

/** The instant of figures from a bucket: the one that is read, unless their streams have been silent for long since. */
export function instantOf(place, streams) {
  const run = time.run();
  const us = readAt();
  const last = value(`run/${run.name}/instants`, [])[place] ?? -1;
  if (last < 0 || place === time.bucketOf(us)) return us;
  const spans = value(`run/${run.name}/spans`, {});
  const newest = Math.min(run.start + last, Math.max(...streams.map((each) => spans[each]?.[1] ?? Infinity)));
  return us - newest > Math.max(SILENT_BUCKETS * run.width, SILENT_US) ? newest : us;
}

/** Say of which instant the figures of a heading are, where it is not the one that all views show. */
export function sayWhen(box, us) {
  setText(box.when, us === null || us === time.at() ? "" : `at ${instant(time.since(us), time.length())}`);
}

/** A chart's box. `draw(box)` is called on changes, new widths and moves of the pointer. */
export function chartBox(spec, { height = 150, draw, wide = false }) {
  const legend = h("div", { class: "legend" });
  const plot = s("svg", { class: "plot", role: "img", preserveAspectRatio: "none" });
  plot.style.minHeight = `${height}px`;
  const box = { spec, legend, plot, width: 0, height, element: null, layers: {} };
  const title = h("h3", {}, spec.title);
  const unit = h("span", { class: "unit" }, spec.unit);
  box.summary = h("p", { class: "visually-hidden" });
  box.when = h("span", { class: "when" });
  box.extra = h("div", { class: "extra" });
  box.element = h(
    "figure", { class: wide ? "chart wide" : "chart" },
    h("figcaption", {}, h("div", { class: "title" }, title, unit, box.when, box.extra), legend),
    plot, box.summary, spec.note ? h("p", { class: "note" }, spec.note) : null,
  );
  for (const name of ["bands", "grid", "data", "marks", "cursor"]) {
    box.layers[name] = s("g", { class: name });
    plot.append(box.layers[name]);
  }
  const redraw = () => { if (box.width > 0 && time.run()) draw(box); };
  new ResizeObserver(([entry]) => {
    box.width = Math.round(entry.contentRect.width);
    box.height = Math.round(entry.contentRect.height);
    plot.setAttribute("viewBox", `0 0 ${box.width} ${box.height}`);
    redraw();
  }).observe(plot);
  plot.addEventListener("pointermove", (event) => {
    const us = box.timeAt?.(event.offsetX);
    setHover(us ?? null);
  });
  plot.addEventListener("pointerleave", () => setHover(null));
  plot.addEventListener("click", () => { if (hover.at !== null) time.moveTo(time.known(hover.at)); });
  watchers.add(redraw);
  box.redraw = redraw;
  box.dispose = () => watchers.delete(redraw);
  return box;
}

/** The scale of time over a chart's width, for the shown run; `until` is where it ends. */
export function timeScale(box, until) {
  const run = time.run();
  const end = Math.max(until ?? 0, run.start + run.used * run.width);
  const span = Math.max(end - run.start, run.width);
  const inner = box.width - MARGIN.left - MARGIN.right;
  const x = (us) => MARGIN.left + ((us - run.start) / span) * inner;
  box.timeAt = (px) => Math.min(Math.max(run.start + ((px - MARGIN.left) / inner) * span, run.oldest), run.newest);
  return { run, x, ofBucket: (place) => x(run.start + (place + 0.5) * run.width), end, span };
}

/** Lines and texts of both axes; without `y` those of the time alone. */
export function drawAxes(box, scale, y, low = 0, high = 0, format = short) {
  const { grid } = box.layers;
  const { run, x, span } = scale;
  const lines = [];
  for (const tick of y ? ticks(low, high, 3) : []) {
    lines.push(s("line", { x1: MARGIN.left, x2: box.width - MARGIN.right, y1: y(tick), y2: y(tick) }));
    lines.push(s("text", { x: MARGIN.left - 6, y: y(tick) + 3.5, class: "y" }, format(tick)));
  }
  const wanted = Math.max(Math.floor(box.width / 110), 2);
  for (const tick of ticks(0, span / 1e6, wanted)) {
    const us = run.oldest + tick * 1e6;
    if (x(us) > box.width - 24) continue;
    lines.push(s("text", { x: x(us), y: box.height - 5, class: tick === 0 ? "x first" : "x" }, elapsed(tick * 1e6, span)));
  }
  grid.replaceChildren(...lines);
}

/** What was planted as bands, alerts as marks at the upper edge, and the shown instant. */
export function drawMarks(box, scale) {
  const { run, x } = scale;
  const bottom = box.height - MARGIN.bottom;
  const planted = value(`run/${run.name}/planted`, []);
  keyed(box.layers.bands, planted, (each) => `${each.t}/${each.kind}`, (each) => s("rect", {}, s("title", {}, `planted: ${each.kind}`)), (child, each) => {
    const width = Math.max(x(each.until ?? each.t) - x(each.t), 2);
    for (const [name, body] of Object.entries({ x: x(each.t), y: MARGIN.top, width, height: bottom - MARGIN.top })) child.setAttribute(name, body);
  });
  const marks = [];
  for (const severity of ["info", "warning", "critical"]) {
    const counts = value(`run/${run.name}/found/${severity}`, []);
    let text = "";
    counts.forEach((count, place) => {
      if (count > 0) text += `M${scale.ofBucket(place).toFixed(1)} 1v7`;
    });
    if (text) marks.push(s("path", { d: text, class: `mark ${severity}` }));
  }
  box.layers.marks.replaceChildren(...marks);
  const lines = [];
  if (!time.isLive()) {
    const at = x(time.at());
    lines.push(s("rect", { class: "future", x: at, y: MARGIN.top, width: Math.max(box.width - MARGIN.right - at, 0), height: bottom - MARGIN.top }));
    lines.push(s("line", { class: "at", x1: at, x2: at, y1: MARGIN.top - 4, y2: bottom }));
  }
  if (hovered() !== null) lines.push(s("line", { class: "hover", x1: x(readAt()), x2: x(readAt()), y1: MARGIN.top, y2: bottom }));
  box.layers.cursor.replaceChildren(...lines);
}

/** Names, colours and values of the lines at the read instant. */
export function drawLegend(box, entries, us = readAt()) {
  sayWhen(box, us);
  keyed(
    box.legend, entries, (each) => each.label,
    (each) => h("span", { class: `entry c${each.colour}` }, h("i", { "aria-hidden": "true" }), h("span", { class: "name" }), h("b")),
    (child, each) => {
      setText(child.children[1], entries.length > 1 || each.always ? each.label : "");
      setText(child.children[2], each.text);
    },
  );
  const said = entries.map((each) => `${each.label} ${each.text}`).join(", ");
  box.plot.setAttribute("aria-label", `${box.spec.title} over time, ${box.spec.unit}`);
  setText(box.summary, `${box.spec.title}: ${said} at ${utc(us)} UTC`);
}
