// Lines over time, and shares of a whole over time.

import { s } from "../dom.js";
import { number } from "../format.js";
import { value } from "../store.js";
import * as time from "../time.js";
import { MARGIN, chartBox, drawAxes, drawLegend, drawMarks, instantOf, placeOf, timeScale } from "./frame.js";
import { bounds, path, placeAt, valueAt } from "./scale.js";

const valuesOf = (run, line) => value(`run/${run.name}/${line.data}`, []);

export function linesChart(spec, options = {}) {
  return chartBox(spec, { ...options, draw: drawLines });
}

function drawLines(box) {
  const { spec } = box;
  const shown = time.run();
  const forecasts = currentForecasts(shown, spec.forecast);
  const until = forecasts.length ? Math.max(...forecasts.map((each) => each.at_us)) : 0;
  const scale = timeScale(box, Math.min(until, shown.start + shown.used * shown.width * 1.35));
  const { run } = scale;
  const arrays = spec.lines.map((line) => valuesOf(run, line));
  const bands = spec.lines.map((line) => (line.band ? ["low", "high"].map((end) => value(`run/${run.name}/${line.data}/${end}`, [])) : []));
  const measured = [...arrays, ...bands.flat()];
  const [low, high] = bounds([...measured, withinReach(forecasts, bounds(measured), scale.end)]);
  const bottom = box.height - MARGIN.bottom;
  const y = (each) => bottom - ((each - low) / (high - low)) * (bottom - MARGIN.top);
  drawAxes(box, scale, y, low, high);
  const drawn = forecasts.length ? forecastBand(scale, forecasts, y, low, high, arrays[0], box) : [];
  spec.lines.forEach((line, place) => {
    const d = path(arrays[place], scale.ofBucket, y, 0, run.used);
    if (spec.lines.length === 1) {
      const area = areaUnder(d, bottom);
      if (area) drawn.push(s("path", { d: area, class: `area c${place}` }));
    }
    if (line.band) drawn.push(s("path", { d: bandOf(...bands[place], scale.ofBucket, y), class: `range c${place}` }, s("title", {}, "lowest to highest value")));
    drawn.push(s("path", { d, class: `line c${place}` }));
  });
  box.layers.data.replaceChildren(...drawn);
  drawMarks(box, scale);
  drawLegend(box, ...figures(spec, arrays, run));
}

/** The entries of a legend, and the instant of their values. */
export function figures(spec, arrays, run) {
  const streams = spec.lines.map((line) => line.stream);
  const bucket = placeOf(streams);
  const firsts = value(`run/${run.name}/firsts`, {});
  const places = arrays.map((array) => placeAt(array, bucket));
  const texts = spec.lines.map((line, place) => number(bucket < 0 ? firsts[line.data] : arrays[place][places[place]]));
  const entries = spec.lines.map((line, place) => ({ label: line.label, colour: place, text: texts[place] }));
  return [entries, instantOf(Math.max(...places), streams)];
}

/** From the lowest to the highest value of each bucket: a stroke each, for neighbours may have none. */
function bandOf(lows, highs, x, y) {
  let text = "";
  lows.forEach((low, place) => {
    if (low !== null && highs[place] > low) text += `M${x(place).toFixed(1)} ${y(low).toFixed(1)}V${y(highs[place]).toFixed(1)}`;
  });
  return text;
}

/** The newest forecasts of a field, while the soonest is still to come and time is not held at an instant before them. */
function currentForecasts(run, target) {
  const own = value(`run/${run.name}/forecasts`, []).filter((each) => each.target === target);
  const soonest = Math.min(...own.map((each) => each.horizon_us));
  return time.isLive() ? own.filter((each) => run.newest - each.from_us <= soonest) : [];
}

/** Medians that are drawn; one far beyond what was measured must not flatten that, and leaves the chart at its edge. */
function withinReach(forecasts, [low, high], end) {
  const room = (high - low) / 2;
  return forecasts.filter((each) => each.at_us <= end).map((each) => Math.min(Math.max(each.median, low - room), high + room));
}

/** The area under a path without gaps; none where it has some. */
function areaUnder(d, bottom) {
  if (!d || d.lastIndexOf("M") > 0) return "";
  const first = d.slice(1).split(/[ L]/, 1)[0];
  const last = d.slice(d.lastIndexOf("L") + 1).split(" ", 1)[0];
  return d.includes("L") ? `${d}L${last} ${bottom}L${first} ${bottom}Z` : "";
}

function forecastBand(scale, forecasts, y, low, high, values, box) {
  const clamp = (each) => Math.min(Math.max(y(each), MARGIN.top), box.height - MARGIN.bottom);
  const newest = Math.max(...forecasts.map((each) => each.from_us));
  const points = forecasts.filter((each) => each.from_us === newest).sort((a, b) => a.at_us - b.at_us);
  const from = valueAt(values, time.bucketOf(newest));
  if (from === null) return [];
  const edge = Math.min(scale.end, points.at(-1).at_us);
  const visible = points.filter((each) => each.at_us <= edge);
  const begin = `${scale.x(newest)} ${clamp(from)}`;
  const upper = visible.map((each) => `L${scale.x(each.at_us)} ${clamp(each.high_95)}`).join("");
  const lower = visible.toReversed().map((each) => `L${scale.x(each.at_us)} ${clamp(each.low_95)}`).join("");
  const median = visible.map((each) => `L${scale.x(each.at_us)} ${clamp(each.median)}`).join("");
  if (!visible.length) return [];
  return [
    s("path", { d: `M${begin}${upper}${lower}Z`, class: "forecast c0" }, s("title", {}, "forecast: 95 % interval")),
    s("path", { d: `M${begin}${median}`, class: "line median c0" }, s("title", {}, "forecast: median")),
  ];
}

export function sharesChart(spec, options = {}) {
  return chartBox(spec, { ...options, draw: drawShares });
}

function drawShares(box) {
  const { spec } = box;
  const scale = timeScale(box);
  const { run } = scale;
  const arrays = spec.lines.map((line) => valuesOf(run, line));
  const bottom = box.height - MARGIN.bottom;
  const y = (share) => bottom - share * (bottom - MARGIN.top);
  drawAxes(box, scale, y, 0, 1, (each) => `${Math.round(each * 100)} %`);
  // Buckets are joined so that each has enough events for a share that says something.
  const joined = Math.max(Math.ceil(run.used / 64), 1);
  const groups = [];
  for (let first = 0; first < run.used; first += joined) {
    const sums = arrays.map((array) => array.slice(first, first + joined).reduce((sum, each) => sum + (each ?? 0), 0));
    const total = sums.reduce((sum, each) => sum + each, 0);
    if (total > 0) groups.push({ middle: first + Math.min(joined, run.used - first) / 2 - 0.5, shares: sums.map((each) => each / total) });
  }
  const drawn = [];
  let below = groups.map(() => 0);
  arrays.forEach((_, place) => {
    const above = groups.map((group, number_) => below[number_] + group.shares[place]);
    const top = groups.map((group, each) => `${scale.ofBucket(group.middle)} ${y(above[each])}`);
    const base = groups.map((group, each) => `${scale.ofBucket(group.middle)} ${y(below[each])}`).reverse();
    if (groups.length > 1) drawn.push(s("path", { d: `M${top.join("L")}L${base.join("L")}Z`, class: `stack c${place}` }));
    below = above;
  });
  box.layers.data.replaceChildren(...drawn);
  drawMarks(box, scale);
  const streams = spec.lines.map((line) => line.stream);
  const bucket = placeOf(streams);
  // The newest buckets with events, as many as are joined, up to the one that is read.
  const newest = Math.max(...arrays.map((array) => lastAbove(array, bucket)));
  const sums = arrays.map((array) => array.slice(Math.max(newest - joined + 1, 0), newest + 1).reduce((sum, each) => sum + (each ?? 0), 0));
  const total = sums.reduce((sum, each) => sum + each, 0);
  drawLegend(box, spec.lines.map((line, place) => ({
    label: line.label, colour: place, text: total > 0 ? `${Math.round((sums[place] / total) * 100)} %` : "–",
  })), instantOf(newest, streams));
}

/** The last place up to one at which there is something; -1 where there is nothing. */
function lastAbove(array, place) {
  let found = place;
  while (found >= 0 && !(array[found] > 0)) found--;
  return found;
}
