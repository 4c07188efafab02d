// Drawing a tree on a canvas: bundles of thin clades, lines of individuals, and what is chosen.

import { elapsed, short } from "../format.js";
import { rgb, scaleOf } from "../charts/colours.js";
import { ticks } from "../charts/scale.js";
import { MARGIN } from "./viewport.js";

const LABEL_PX = 15;
const DOT_PX = 7;

function palette(canvas) {
  const style = getComputedStyle(canvas);
  const read = (name) => style.getPropertyValue(name).trim();
  return { scale: scaleOf(canvas, "scale"), ink: read("--ink"), muted: read("--muted"), faint: read("--faint"), grid: read("--grid") };
}

/** Colour of a value between two bounds; a value that is not known has none. */
function colourOf(colours, value, range) {
  if (value === null || value === undefined || !range) return colours.faint;
  return rgb(colours.scale, range[1] > range[0] ? (value - range[0]) / (range[1] - range[0]) : 0.5);
}

export function drawTree(canvas, port, tree, { selected, hovered, start, at }) {
  const ratio = devicePixelRatio || 1;
  const [width, height] = [Math.round(port.width * ratio), Math.round(port.height * ratio)];
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, port.width, port.height);
  const colours = palette(canvas);
  drawTimes(context, port, colours, start);
  if (!tree.lines) return;
  context.save();
  context.beginPath();
  context.rect(0, 0, port.width, port.height - MARGIN.bottom + 2);
  context.clip();
  drawBundles(context, port, tree, colours);
  drawLines(context, port, tree, colours);
  if (selected !== null) drawWay(context, port, tree, colours, selected);
  if (hovered >= 0) ring(context, port, tree.lines, hovered, colours.muted);
  if (at !== null) {
    context.strokeStyle = colours.ink;
    context.setLineDash([3, 3]);
    stroke(context, [[port.x(at), MARGIN.top], [port.x(at), port.height - MARGIN.bottom]]);
    context.setLineDash([]);
  }
  context.restore();
}

function stroke(context, points) {
  context.beginPath();
  points.forEach(([x, y], place) => (place ? context.lineTo(x, y) : context.moveTo(x, y)));
  context.stroke();
}

function drawTimes(context, port, colours, start) {
  const { from, to } = port.view();
  context.font = `11px ${getComputedStyle(context.canvas).fontFamily}`;
  context.textAlign = "center";
  context.lineWidth = 1;
  for (const tick of ticks((from - start) / 1e6, (to - start) / 1e6, Math.max(Math.floor(port.width / 110), 2))) {
    const x = port.x(start + tick * 1e6);
    if (x < MARGIN.left - 1 || x > port.width - 26) continue;
    context.strokeStyle = colours.grid;
    stroke(context, [[x, MARGIN.top], [x, port.height - MARGIN.bottom]]);
    context.fillStyle = colours.muted;
    context.textAlign = x < 30 ? "left" : "center";
    context.fillText(elapsed(tick * 1e6, to - from), x, port.height - 8);
  }
}

function drawBundles(context, port, tree, colours) {
  const { top = [], bottom, birth, end, mean_birth: meanBirth, mean_end: meanEnd, value } = tree.bundles;
  for (let place = 0; place < top.length; place++) {
    const [y, below] = [port.y(top[place]), port.y(bottom[place])];
    context.fillStyle = colourOf(colours, value[place], tree.range);
    for (const [alpha, from, until] of [[0.22, birth[place], end[place]], [0.4, meanBirth[place], meanEnd[place]]]) {
      context.globalAlpha = alpha;
      context.fillRect(port.x(from), y, Math.max(port.x(until) - port.x(from), 1), Math.max(below - y - 0.4, 0.6));
    }
  }
  context.globalAlpha = 1;
}

function drawLines(context, port, tree, colours) {
  const { lines } = tree;
  const rowPx = port.rowPx();
  context.lineWidth = rowPx > 4 ? 1.8 : 1.1;
  const taken = [];
  for (let place = 0; place < lines.id.length; place++) {
    const y = port.y(lines.row[place]);
    const [x, until] = [port.x(lines.birth[place]), port.x(lines.end[place])];
    const parent = lines.parent[place];
    context.strokeStyle = colourOf(colours, lines.value[place], tree.range);
    stroke(context, parent >= 0 ? [[x, port.y(lines.row[parent])], [x, y], [Math.max(until, x + 1), y]] : [[x, y], [Math.max(until, x + 1), y]]);
    if (rowPx >= DOT_PX && lines.alive[place]) dot(context, until, y, context.strokeStyle);
    if (rowPx >= LABEL_PX) drawLabel(context, port, tree, colours, place, [Math.max(x, MARGIN.left), until, y], taken);
  }
}

function dot(context, x, y, colour) {
  context.fillStyle = colour;
  context.beginPath();
  context.arc(x, y, 2.6, 0, 2 * Math.PI);
  context.fill();
}

/** Id of an individual, and how many lines of its descendants died out, where there is room for both. */
function drawLabel(context, port, tree, colours, place, [x, until, y], taken) {
  const { lines } = tree;
  const extinct = lines.extinct[place];
  const text = `${lines.id[place]}${extinct ? `  † ${short(extinct)}` : ""}`;
  const room = Math.min(until, port.width - MARGIN.right) - x;
  const width = context.measureText(text).width + 10;
  if (room < width || taken.some((each) => Math.abs(each.y - y) < 12 && each.x < x + width && x < each.until)) return;
  taken.push({ x, until: x + width, y });
  context.fillStyle = colours.muted;
  context.textAlign = "left";
  context.fillText(text, x + 5, y - 3);
}

/** The chosen individual, and the way to its founder. */
function drawWay(context, port, tree, colours, selected) {
  const { lines } = tree;
  const chosen = lines.id.indexOf(selected);
  if (chosen < 0) return;
  context.strokeStyle = colours.ink;
  context.lineWidth = 2.4;
  let until = lines.end[chosen];
  for (let place = chosen; place >= 0; place = lines.parent[place]) {
    const [x, y] = [port.x(lines.birth[place]), port.y(lines.row[place])];
    const parent = lines.parent[place];
    stroke(context, [...(parent >= 0 ? [[x, port.y(lines.row[parent])]] : []), [x, y], [port.x(until), y]]);
    until = lines.birth[place];
  }
  ring(context, port, lines, chosen, colours.ink);
}

function ring(context, port, lines, place, colour) {
  context.strokeStyle = colour;
  context.lineWidth = 2;
  context.beginPath();
  const x = Math.min(Math.max(port.x(lines.birth[place]), MARGIN.left), port.width - MARGIN.right);
  context.arc(x, port.y(lines.row[place]), 5, 0, 2 * Math.PI);
  context.stroke();
}

/** Place of the line nearest to a point, -1 where none is near. */
export function lineAt(port, tree, px, py) {
  const lines = tree?.lines;
  let best = -1;
  let least = 12;
  for (let place = 0; place < (lines?.id.length ?? 0); place++) {
    const [x, until] = [port.x(lines.birth[place]), port.x(lines.end[place])];
    const beside = Math.max(x - px, px - until, 0);
    const distance = Math.abs(port.y(lines.row[place]) - py) + beside;
    if (distance < least) [best, least] = [place, distance];
  }
  return best;
}
