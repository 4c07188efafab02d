// How many individuals have which value of a trait, or how often which name came, over time: one column for each bucket,
// dark where many are.

import { h, s } from "../dom.js";
import { number, short } from "../format.js";
import { value } from "../store.js";
import { mixed, scaleOf } from "./colours.js";
import { MARGIN, chartBox, drawAxes, drawLegend, drawMarks, instantOf, placeOf, timeScale } from "./frame.js";

/** Height of a row with a name. */
const NAME_PX = 13;

export function heatChart(spec, options = {}) {
  const rows = Math.max(...spec.classes.map((each) => each.names.length));
  const box = chartBox(spec, { height: Math.max(180, rows * NAME_PX + MARGIN.top + MARGIN.bottom), ...options, draw: drawHeat });
  box.trait = 0;
  if (spec.classes.length > 1) {
    const choice = h("select", { "aria-label": "Trait", onchange: (event) => { box.trait = Number(event.target.value); box.redraw(); } },
      spec.classes.map((each, place) => h("option", { value: String(place) }, each.label.replaceAll("_", " "))));
    box.extra.append(choice);
  }
  box.canvas = document.createElement("canvas");
  return box;
}

function drawHeat(box) {
  const classes = box.spec.classes[box.trait];
  const named = classes.names.length > 0 || classes.bounds.length === 0;
  const number_ = named ? Math.max(classes.names.length, 1) : classes.rows;
  const stride = classes.rows;
  const scale = timeScale(box);
  const { run, x } = scale;
  const counts = value(`run/${run.name}/${classes.data}`, []);
  const bottom = box.height - MARGIN.bottom;
  const y = (place) => bottom - (place / number_) * (bottom - MARGIN.top);
  const [low, high] = [classes.bounds[0], classes.bounds.at(-1)];
  const rowOf = (each) => classes.ratio
    ? (Math.log(each / low) / Math.log(high / low)) * number_
    : ((each - low) / (high - low)) * number_;
  drawAxes(box, scale, null);
  if (!named) drawClassTicks(box, classes, (each) => y(rowOf(each)), low, high);
  // Some buckets are joined: a column shows shares, which a handful of individuals cannot.
  const joined = Math.max(Math.ceil(run.used / 128), 1);
  const columns = Math.ceil(run.used / joined);
  const { canvas } = box;
  canvas.width = Math.max(columns, 1);
  canvas.height = number_;
  const context = canvas.getContext("2d");
  const picture = context.createImageData(canvas.width, canvas.height);
  const stops = scaleOf(box.plot, "heat");
  for (let column = 0; column < columns; column++) {
    const sums = new Array(number_).fill(0);
    for (let place = column * joined; place < Math.min((column + 1) * joined, run.used); place++) {
      for (let each = 0; each < number_; each++) sums[each] += counts[place * stride + each] ?? 0;
    }
    const total = sums.reduce((sum, each) => sum + each, 0);
    for (let each = 0; each < number_; each++) {
      const at = ((number_ - 1 - each) * canvas.width + column) * 4;
      const [red, green, blue] = mixed(stops, total ? Math.sqrt((sums[each] / total) * 2) : 0);
      picture.data.set([red, green, blue, total ? 255 : 0], at);
    }
  }
  context.putImageData(picture, 0, 0);
  const width = x(run.start + columns * joined * run.width) - x(run.start);
  if (!box.holder) {
    canvas.setAttribute("class", "heat");
    box.holder = s("foreignObject", {}, canvas);
    box.layers.data.append(box.holder);
  }
  const place = { x: MARGIN.left, y: MARGIN.top, width, height: bottom - MARGIN.top };
  for (const [name, body] of Object.entries(place)) box.holder.setAttribute(name, body);
  drawMarks(box, scale);
  if (named) drawNames(box, classes.names, (place) => y(place + 0.5));
  // The newest buckets with values, as many as are joined, up to the one that is read.
  const last = lastFilled(counts, stride, placeOf([classes.stream]));
  let best = -1;
  let most = 0;
  let total = 0;
  for (let each = 0; each < number_; each++) {
    let count = 0;
    for (let place = Math.max(last - joined + 1, 0); place <= last; place++) count += counts[place * stride + each] ?? 0;
    total += count;
    if (count > most) [best, most] = [each, count];
  }
  drawLegend(box, [{
    label: "most common", always: true, colour: 0,
    text: best < 0 ? "–" : `${labelOf(classes, best, named)} (${Math.round((most / total) * 100)} %)`,
  }], instantOf(last, [classes.stream]));
}

const labelOf = (classes, row, named) => named
  ? classes.names[row].replaceAll("_", " ")
  : `${number(classes.bounds[row])} to ${number(classes.bounds[row + 1])}`;

/** The last bucket up to one that has values; -1 where none has. */
function lastFilled(counts, number_, end) {
  for (let place = end; place >= 0; place--) {
    for (let each = 0; each < number_; each++) if (counts[place * number_ + each] > 0) return place;
  }
  return -1;
}

/** Names are longer than numbers: they stand in the picture, at its left edge. */
function drawNames(box, names, y) {
  for (const [place, name] of names.entries()) {
    box.layers.marks.append(s("text", { x: MARGIN.left + 4, y: y(place) + 3.5, class: "name" }, name.replaceAll("_", " ")));
  }
}

function drawClassTicks(box, classes, y, low, high) {
  const shown = classes.ratio
    ? [0, 1, 2, 3, 4].map((each) => low * (high / low) ** (each / 4))
    : [0, 0.25, 0.5, 0.75, 1].map((each) => low + (high - low) * each);
  for (const each of shown) box.layers.grid.append(s("text", { x: MARGIN.left - 6, y: y(each) + 3.5, class: "y" }, short(each)));
}
