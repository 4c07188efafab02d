// A rule's automaton as a picture: states in layers from the start to the match, arrows with their conditions beside.

import { h, s } from "../dom.js";

const NARROW = 92;
const LETTER = 7.4;
const GAP = 64;
const HEIGHT = 40;
const ROW = 84;
const TOP = 30;
const PAPER = 10;

export function automatonView(rule) {
  if (!rule.nodes.length) {
    return h("p", { class: "hint" }, `The automaton of ${rule.name} has ${rule.states} states, too many for a picture; astrocyte rules explain prints it.`);
  }
  const longest = Math.max(...rule.nodes.flatMap((node) => node.lines.map((line) => Math.min(line.length, 34))));
  const box = Math.max(NARROW, longest * LETTER + 18);
  const places = layout(rule, box);
  const numbers = new Map();
  const labelled = rule.edges.filter((edge) => edge.text).map((edge, place) => {
    numbers.set(edge, place + 1);
    return edge;
  });
  const width = Math.max(...[...places.values()].map((each) => each.x)) + box + PAPER + 34;
  const height = Math.max(...[...places.values()].map((each) => each.y)) + HEIGHT + 34;
  const marker = `arrow-${rule.name.replace(/[^\w-]/g, "_")}`;
  const picture = s("svg", { class: "automaton", viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": `Automaton of rule ${rule.name}` },
    s("defs", {}, s("marker", { id: marker, viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto-start-reverse" }, s("path", { d: "M0 0L8 4L0 8Z" }))),
    rule.edges.map((edge) => drawEdge(edge, places, numbers.get(edge), marker, box)),
    rule.nodes.map((node) => drawNode(node, places.get(node.name), box)));
  const kinds = { take: "takes", ignore: "passes over", time: "after", part: "", none_of: "none of" };
  return h("figure", { class: "automaton-box" },
    h("figcaption", {}, h("h3", {}, rule.name.replaceAll("_", " ")), rule.remarks.map((each) => h("p", { class: "hint" }, each))),
    h("div", { class: "scroll-x", tabindex: "0", role: "region", "aria-label": `Picture of the automaton of ${rule.name}` }, picture),
    labelled.length ? h("ol", { class: "edges" }, labelled.map((edge) => h("li", { class: edge.kind }, h("b", {}, kinds[edge.kind]), " ", h("code", {}, edge.text)))) : null);
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

function drawEdge(edge, places, number, marker, width) {
  const [a, b] = [places.get(edge.source), places.get(edge.target)];
  const solid = edge.kind === "ignore" || edge.kind === "none_of" ? "dotted" : "solid";
  const parts = [];
  let at;
  if (a === b) {
    const middle = a.x + width / 2 + (edge.kind === "ignore" ? -22 : 22);
    parts.push(`M${middle - 13} ${a.y}C${middle - 20} ${a.y - 26} ${middle + 20} ${a.y - 26} ${middle + 13} ${a.y}`);
    at = [middle, a.y - 20];
  } else if (b.column > a.column) {
    const [x1, y1, x2, y2] = [a.x + width, a.y + HEIGHT / 2, b.x, b.y + HEIGHT / 2];
    const far = b.column - a.column > 1 ? Math.max(0, ROW * 0.62 - Math.abs(y2 - y1) * 0.2) : 0;
    const bend = (x2 - x1) / 2;
    parts.push(`M${x1} ${y1}C${x1 + bend} ${y1 + far} ${x2 - bend} ${y2 + far} ${x2} ${y2}`);
    at = [(x1 + x2) / 2, (y1 + y2) / 2 + far * 0.75];
  } else {
    const [x1, y1, x2, y2] = [a.x + width / 2 + 20, a.y + HEIGHT, b.x + width / 2 - 20, b.y + HEIGHT];
    const down = b.row === a.row ? 26 : 40;
    parts.push(`M${x1} ${y1}C${x1} ${y1 + down} ${x2} ${y2 + down} ${x2} ${y2}`);
    at = [(x1 + x2) / 2, Math.max(y1, y2) + down * 0.7];
  }
  return s("g", { class: `edge ${edge.kind} ${solid}` }, s("title", {}, edge.text || edge.kind),
    s("path", { d: parts.join(""), "marker-end": `url(#${marker})` }),
    number ? s("g", { class: "number" }, s("circle", { cx: at[0], cy: at[1], r: 8.5 }), s("text", { x: at[0], y: at[1] + 3.5 }, String(number))) : null);
}
