// A rule's automaton as a picture: states in layers from the start to the match, arrows with their conditions beside.

import { h, s } from "../dom.js";

const NARROW = 92;
const LETTER = 7.4;
const GAP = 64;
const HEIGHT = 40;
const ROW = 84;
const TOP = 30;
const PAPER = 10;
const RADIUS = 8.5;

export function automatonView(rule) {
  if (!rule.nodes.length) {
    return h("p", { class: "hint" }, `The automaton of ${rule.name} has ${rule.states} states, too many for a picture; astrocyte rules explain prints it.`);
  }
  const nodes = toldApart(rule.nodes);
  const longest = Math.max(...nodes.flatMap((node) => node.lines.map((line) => Math.min(line.length, 34))));
  const box = Math.max(NARROW, longest * LETTER + 18);
  const places = layout(rule, box);
  const numbers = new Map();
  const labelled = rule.edges.filter((edge) => edge.text).map((edge, place) => {
    numbers.set(edge, place + 1);
    return edge;
  });
  const width = Math.max(...[...places.values()].map((each) => each.x)) + box + PAPER + 34;
  const height = Math.max(...[...places.values()].map((each) => each.y)) + HEIGHT + 34;
  const labels = [];
  const marker = `arrow-${rule.name.replace(/[^\w-]/g, "_")}`;
  const picture = s("svg", { class: "automaton", viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": `Automaton of rule ${rule.name}` },
    s("defs", {}, s("marker", { id: marker, viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto-start-reverse" }, s("path", { d: "M0 0L8 4L0 8Z" }))),
    rule.edges.map((edge) => drawEdge(edge, places, numbers.get(edge), marker, box, labels)),
    nodes.map((node) => drawNode(node, places.get(node.name), box)));
  const kinds = { take: "takes", ignore: "passes over", time: "after", part: "", none_of: "none of" };
  return h("figure", { class: "automaton-box" },
    h("figcaption", {}, h("h3", {}, rule.name.replaceAll("_", " ")), rule.remarks.map((each) => h("p", { class: "hint" }, each))),
    h("div", { class: "scroll-x", tabindex: "0", role: "region", "aria-label": `Picture of the automaton of ${rule.name}` }, picture),
    labelled.length ? h("ol", { class: "edges" }, labelled.map((edge) => h("li", { class: edge.kind }, h("b", {}, kinds[edge.kind]), " ", h("code", {}, edge.text)))) : null);
}

/** The nodes, those with the same label as one before numbered. */
function toldApart(nodes) {
  const seen = new Map();
  return nodes.map((node) => {
    const label = node.lines.join("\n");
    const count = (seen.get(label) ?? 0) + 1;
    seen.set(label, count);
    return count === 1 ? node : { ...node, lines: [...node.lines.slice(0, -1), `${node.lines.at(-1)} (${count})`] };
  });
}

/** Layers by the longest way from the start without going back; states that stop lie below those that lead to them. */
function layout(rule, width) {
  const layer = new Map();
  const forward = rule.edges.filter((edge) => edge.source !== edge.target);
  const entered = new Set(forward.map((edge) => edge.target));
  const starts = rule.nodes.filter((node) => node.kind === "start" || !entered.has(node.name)).map((node) => node.name);
  const visit = (name, depth, way) => {
    if (way.has(name) || (layer.get(name) ?? -1) >= depth) return;
    layer.set(name, depth);
    way.add(name);
    for (const edge of forward) if (edge.source === name) visit(edge.target, depth + 1, way);
    way.delete(name);
  };
  for (const name of starts.length ? starts : [rule.nodes[0].name]) visit(name, 0, new Set());
  const rows = new Map();
  const places = new Map();
  for (const node of rule.nodes) {
    const column = layer.get(node.name) ?? 0;
    const row = rows.get(column) ?? 0;
    rows.set(column, row + 1);
    places.set(node.name, { x: PAPER + column * (width + GAP), y: TOP + row * ROW, column, row });
  }
  // The steps of an `all` stand above each other, its match in their middle.
  const match = rule.nodes.find((node) => node.kind === "all");
  if (match) places.get(match.name).y = TOP + (Math.max(...rows.values()) - 1) * ROW * 0.5;
  return places;
}

function drawNode(node, { x, y }, width) {
  const round = node.kind === "state" || node.kind === "stop" ? 5 : HEIGHT / 2;
  const lines = node.lines.map((line) => (line.length > 34 ? `${line.slice(0, 33)}…` : line));
  return s("g", { class: `state-node ${node.kind}` }, s("title", {}, node.lines.join(", ")),
    s("rect", { x, y, width: width, height: HEIGHT, rx: round }),
    node.kind === "final" || node.kind === "all" ? s("rect", { class: "inner", x: x + 3, y: y + 3, width: width - 6, height: HEIGHT - 6, rx: round - 3 }) : null,
    lines.map((line, place) => s("text", { x: x + width / 2, y: y + HEIGHT / 2 + 4 + (place - (lines.length - 1) / 2) * 15 }, line)));
}

function drawEdge(edge, places, number, marker, width, labels) {
  const curve = curveOf(edge, places.get(edge.source), places.get(edge.target), width);
  const [x1, y1, ...rest] = curve;
  const solid = edge.kind === "ignore" || edge.kind === "none_of" ? "dotted" : "solid";
  const at = number ? labelPlace(curve, labels) : null;
  return s("g", { class: `edge ${edge.kind} ${solid}` }, s("title", {}, edge.text || edge.kind),
    s("path", { d: `M${x1} ${y1}C${rest.join(" ")}`, "marker-end": `url(#${marker})` }),
    at ? s("g", { class: "number" }, s("circle", { cx: at[0], cy: at[1], r: RADIUS }), s("text", { x: at[0], y: at[1] + 3.5 }, String(number))) : null);
}

/** The four points of the Bézier curve from one place to another. */
function curveOf(edge, a, b, width) {
  if (a === b) {
    const middle = a.x + width / 2 + (edge.kind === "ignore" ? -22 : 22);
    return [middle - 13, a.y, middle - 20, a.y - 26, middle + 20, a.y - 26, middle + 13, a.y];
  }
  if (b.column > a.column) {
    const [x1, y1, x2, y2] = [a.x + width, a.y + HEIGHT / 2, b.x, b.y + HEIGHT / 2];
    const far = b.column - a.column > 1 ? Math.max(0, ROW * 0.62 - Math.abs(y2 - y1) * 0.2) : 0;
    const bend = (x2 - x1) / 2;
    return [x1, y1, x1 + bend, y1 + far, x2 - bend, y2 + far, x2, y2];
  }
  const [x1, y1, x2, y2] = [a.x + width / 2 + 20, a.y + HEIGHT, b.x + width / 2 - 20, b.y + HEIGHT];
  const down = b.row === a.row ? 26 : 40;
  return [x1, y1, x1, y1 + down, x2, y2 + down, x2, y2];
}

/** Where the number of an edge stands: in the middle of its curve, or beside it where another number does. */
function labelPlace([x1, y1, x2, y2, x3, y3, x4, y4], labels) {
  const point = (t) => {
    const [a, b, c, d] = [(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t ** 3];
    return [a * x1 + b * x2 + c * x3 + d * x4, a * y1 + b * y2 + c * y3 + d * y4];
  };
  const points = [0.5, 0.4, 0.6, 0.3, 0.7, 0.2, 0.8].map(point);
  const free = points.find(([x, y]) => labels.every((each) => Math.hypot(each[0] - x, each[1] - y) >= 2 * RADIUS + 2)) ?? points[0];
  labels.push(free);
  return free;
}
