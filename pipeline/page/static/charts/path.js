// One value over another: the way that a run took through both.

import { s } from "../dom.js";
import { elapsed, short } from "../format.js";
import { value } from "../store.js";
import * as time from "../time.js";
import { MARGIN, chartBox, drawLegend } from "./frame.js";
import { figures } from "./lines.js";
import { bounds, ticks } from "./scale.js";

export function pathChart(spec, options = {}) {
  return chartBox(spec, { ...options, draw: drawPath });
}

function drawPath(box) {
  const run = time.run();
  const [over, line] = box.spec.lines;
  const xs = value(`run/${run.name}/${over.data}`, []);
  const ys = value(`run/${run.name}/${line.data}`, []);
  const bottom = box.height - MARGIN.bottom - 8;
  const [left, right] = bounds([xs]);
  const [low, high] = bounds([ys]);
  const x = (each) => MARGIN.left + ((each - left) / (right - left)) * (box.width - MARGIN.left - MARGIN.right);
  const y = (each) => bottom - ((each - low) / (high - low)) * (bottom - MARGIN.top);
  const grid = [];
  for (const tick of ticks(low, high, 3)) {
    grid.push(s("line", { x1: MARGIN.left, x2: box.width - MARGIN.right, y1: y(tick), y2: y(tick) }));
    grid.push(s("text", { x: MARGIN.left - 6, y: y(tick) + 3.5, class: "y" }, short(tick)));
  }
  for (const tick of ticks(left, right, 4)) grid.push(s("text", { x: x(tick), y: bottom + 13, class: "x" }, short(tick)));
  grid.push(s("text", { x: box.width - MARGIN.right, y: box.height - 3, class: "x last" }, `${over.label} →`));
  box.layers.grid.replaceChildren(...grid);
  const end = time.isFirst(time.at()) ? -1 : time.bucketOf(time.at());
  const points = [];
  for (let place = 0; place <= end; place++) {
    if (xs[place] === null || xs[place] === undefined || ys[place] === null || ys[place] === undefined) continue;
    points.push([x(xs[place]), y(ys[place]), place]);
  }
  const parts = 24;
  const drawn = [];
  for (let part = 0; part < parts; part++) {
    const first = Math.floor((part * points.length) / parts);
    const own = points.slice(Math.max(first - 1, 0), Math.floor(((part + 1) * points.length) / parts));
    if (own.length > 1) {
      const d = `M${own.map(([px, py]) => `${px.toFixed(1)} ${py.toFixed(1)}`).join("L")}`;
      drawn.push(s("path", { d, class: "line way c0", "stroke-opacity": (0.18 + (0.82 * part) / (parts - 1)).toFixed(2) }));
    }
  }
  const last = points.at(-1);
  if (last) drawn.push(s("circle", { cx: last[0], cy: last[1], r: 4, class: "dot c0" }));
  box.layers.data.replaceChildren(...drawn);
  const [entries, us] = figures(box.spec, [xs, ys], run);
  drawLegend(box, entries.map((each) => ({ ...each, colour: 0 })), us);
  box.plot.setAttribute("aria-label", `${box.spec.title}: the way of the run until ${elapsed(time.since(time.at()), time.length())}`);
}
