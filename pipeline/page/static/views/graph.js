// The topology: columns from the topics that are read to the stores, with what flows through each part.

import { h, s, setText } from "../dom.js";
import { counted, number, short, span } from "../format.js";
import { value } from "../store.js";
import * as time from "../time.js";
import { rateShown, rateText, trafficBucket } from "./pipeline.js";

const HEADINGS = ["read", "repartition", "copies", "rules", "written", "roles", "stores"];

/** `open(topic, button)` shows the messages of a topic. */
export function graphView(open) {
  const edges = s("svg", { class: "edges", "aria-hidden": "true" });
  const columns = h("div", { class: "columns" });
  const element = h("section", { class: "graph", "aria-label": "Topology", tabindex: "0" }, edges, columns);
  const cards = new Map();
  let drawn = "";

  const observer = new ResizeObserver(drawEdges);
  observer.observe(element);

  function make(graph) {
    cards.clear();
    const used = [...new Set(graph.nodes.map((each) => each.column))].sort((a, b) => a - b);
    columns.replaceChildren(...used.map((column) => h("div", { class: "column" }, h("h3", {}, HEADINGS[column]),
      graph.nodes.filter((each) => each.column === column).map((node) => {
        const figure = h("b", { class: "figure" });
        const detail = h("span", { class: "detail" });
        const bars = s("svg", { class: "spark", viewBox: "0 0 100 18", preserveAspectRatio: "none", "aria-hidden": "true" }, s("path"));
        const name = node.kind === "domains" ? `${node.label} by ${node.by}` : (node.label ?? node.id);
        const card = h("article", { class: `node ${node.kind}`, "data-id": node.id },
          h("h4", { title: node.id }, node.kind === "topic" ? h("button", { type: "button", class: "link", onclick: (event) => open(node.id, event.currentTarget) }, name) : name), h("p", {}, figure, detail), node.kind.startsWith("topic") ? bars : null,
          node.rules ? listed(node.rules.length === 1 ? "1 rule, window or statistic" : `${node.rules.length} rules, windows, statistics`, node.rules.map((each) => each.replaceAll("_", " "))) : null,
          node.topics ? listed(counted(node.topics.length, "topic"), node.topics) : null);
        card.addEventListener("toggle", drawEdges, true);
        cards.set(node.id, { card, figure, detail, bars: bars.firstChild, node });
        return card;
      }))));
    drawEdges();
  }

  function drawEdges() {
    const graph = value("graph", null);
    const box = columns.getBoundingClientRect();
    if (!graph || !box.width) return;
    edges.setAttribute("width", columns.scrollWidth);
    edges.setAttribute("height", columns.scrollHeight);
    const place = (id) => {
      const own = cards.get(id)?.card.getBoundingClientRect();
      return own && { left: own.left - box.left, right: own.right - box.left, middle: own.top - box.top + Math.min(own.height / 2, 30) };
    };
    edges.replaceChildren(...graph.edges.map(([from, to]) => {
      const [a, b] = [place(from), place(to)];
      if (!a || !b) return null;
      if (a.left > b.right) { // a junction leads back from what one group wrote to another
        const back = (a.left - b.right) / 2;
        return s("path", { d: `M${a.left} ${a.middle}C${a.left - back} ${a.middle} ${b.right + back} ${b.middle} ${b.right} ${b.middle}` });
      }
      if (a.right > b.left) return null;
      const bend = (b.left - a.right) / 2;
      return s("path", { d: `M${a.right} ${a.middle}C${a.right + bend} ${a.middle} ${b.left - bend} ${b.middle} ${b.left} ${b.middle}` });
    }).filter(Boolean));
  }

  function update() {
    const graph = value("graph", null);
    element.hidden = !graph?.nodes.length;
    if (!graph) return;
    const now = JSON.stringify(graph.nodes);
    if (now !== drawn) {
      drawn = now;
      make(graph);
    }
    const traffic = value("traffic", null);
    const bucket = trafficBucket(traffic);
    const notHeld = time.whenNotHeld();
    const roles = value("health", {})?.roles ?? {};
    const domains = Object.entries(value("domains", {}));
    for (const { card, figure, detail, bars, node } of cards.values()) {
      if (node.kind === "topic" || node.kind === "topics") {
        const names = (node.topics ?? [node.id]).filter((each) => each in (traffic?.messages ?? {}));
        const rates = sum_(names.map((each) => value(`traffic/${each}`, [])));
        const count = names.reduce((total, each) => total + traffic.messages[each], 0);
        setText(figure, names.length ? `${rateText(rateShown(traffic, names, rates, bucket))}/s` : "");
        const joined = domains.map(([, each]) => each.joined?.[node.junction]).filter((each) => each !== undefined);
        const pairs = joined.reduce((total, each) => total + each, 0);
        const link = joined.length ? `${pairs ? `${counted(pairs, "pair")} joined` : "joins nothing"}, ` : "";
        card.classList.toggle("closed", joined.length > 0 && !pairs);
        setText(detail, link + (names.length ? `${counted(count, "message")}${notHeld}` : "no messages here"));
        spark(bars, rates, bucket);
      } else if (node.kind === "domains") {
        const own = domains.filter(([name]) => name.startsWith(`${node.role}/`)).map(([, each]) => each);
        const behind = own.map((each) => each.behind_s).filter((each) => each !== null);
        const sum = (name) => own.reduce((total, each) => total + (each[name] ?? 0), 0);
        setText(figure, own.length ? `${short(sum("processed"))} ${sum("processed") === 1 ? "event" : "events"}` : "");
        setText(detail, own.length ? `${behind.length ? `${span(Math.max(...behind))} behind, ` : ""}${number(sum("late"))} late, ${number(sum("dead"))} dead${notHeld}` : "no figures in this source");
        card.classList.toggle("wrong", own.some((each) => each.stalls?.length));
      } else if (node.kind === "role") {
        const role = roles[node.role];
        setText(figure, role ? (role.lag === null || role.lag === undefined ? "–" : `lag ${short(role.lag)}`) : "");
        setText(detail, role ? `${counted(role.members ?? 0, "member")}, ${role.state ?? ""}${notHeld}` : "");
        card.classList.toggle("wrong", role?.members === 0);
        card.classList.toggle("behind", (role?.lag ?? 0) > 1000);
      }
    }
  }

  return { element, update, leave: () => observer.disconnect() };
}

const listed = (title, items) => h("details", {}, h("summary", {}, title), h("ul", {}, items.map((each) => h("li", {}, each))));

const sum_ = (arrays) => (arrays.length === 1 ? arrays[0] : (arrays[0] ?? []).map((_, place) => arrays.reduce((total, each) => total + (each[place] ?? 0), 0)));

function spark(path, rates, until) {
  const joined = Math.max(Math.ceil((until + 1) / 40), 1);
  const bars = [];
  for (let first = 0; first <= until; first += joined) bars.push(Math.max(...rates.slice(first, Math.min(first + joined, until + 1)), 0));
  const most = Math.max(...bars, 1e-9);
  path.setAttribute("d", bars.map((each, place) => (each ? `M${((place + 0.5) / bars.length) * 100} 18v${-(each / most) * 17}` : "")).join(""));
}
