// The pipeline: what flows through it, who is behind, and what was refused.

import { h, keyed, setText } from "../dom.js";
import { bytes, number, short, span } from "../format.js";
import { value } from "../store.js";
import * as time from "../time.js";
import { lettersPanel } from "../pipeline/letters.js";
import { tailPanel } from "../pipeline/tail.js";
import { graphView } from "./graph.js";

const RATE_US = 5e6;
const LEAST_US = 1e6;
const TEXTS = ["what to do"];

export function pipelineView() {
  const tail = tailPanel();
  const graph = graphView(tail.open);
  const noRules = h("p", { class: "hint" }, "The topology is drawn from rule files: start the page with those of the workers, astrocyte page --rules FILE.");
  const problem = h("p", { class: "notice inline", role: "status", hidden: true });
  const roles = table("Roles", ["role", "state", "members", "lag", "to clear it", "restarts", "what to do"]);
  const domains = table("Domains", ["domain", "behind", "waiting", "processed", "late", "dead", "duplicate", "matches", "alerts"]);
  const topics = table("Topics", ["topic", "messages", "messages/s", "bytes"], tail.open);
  const letters = lettersPanel();
  const element = h("section", { class: "pipeline", "aria-label": "Pipeline" }, problem, noRules, graph.element, tail.element,
    h("div", { class: "panels" }, roles.element, domains.element, topics.element,
      letters.element));
  const lags = new Map();

  function update() {
    const health = value("health", null);
    const source = value("source", {});
    problem.hidden = !health?.problem;
    setText(problem, health?.problem ?? "");
    noRules.hidden = value("graph", { nodes: [] }).nodes.length > 0;
    graph.update();
    const notHeld = time.whenNotHeld();
    setText(roles.title, `Roles${notHeld}`);
    setText(domains.title, `Domains${notHeld}`);
    for (const name of ["messages", "bytes"]) topics.head(name, `${name}${notHeld}`);
    updateRoles(health, source);
    updateDomains();
    updateTopics();
    letters.update();
    tail.update();
  }

  function updateRoles(health, source) {
    roles.element.hidden = !source.live;
    const found = Object.entries(health?.roles ?? {});
    roles.rows(found.map(([name, role]) => {
      const restarts = Object.values(role.process?.restarts ?? {}).reduce((sum, each) => sum + each, 0);
      const remarks = [...(role.do ?? []), ...(role.waits ?? []), ...(role.process?.waits ?? []), ...(role.lines ?? [])];
      return { key: name, wrong: role.members === 0 || (role.waits ?? []).length > 0, cells: [
        name, role.state ?? "–", role.members ?? "–", role.lag ?? "–", clearance(name, role.lag), role.process ? restarts : "–", remarks.join("; ") || "nothing"] };
    }), "No role has a consumer group on this broker: start one with astrocyte worker.");
  }

  /** How long the lag takes to clear at the pace of the last looks. */
  function clearance(name, lag) {
    if (lag === null || lag === undefined) return "–";
    const known = lags.get(name) ?? { lag, at: performance.now(), pace: null };
    const passed = (performance.now() - known.at) / 1000;
    if (lag !== known.lag && passed > 1) Object.assign(known, { pace: (known.lag - lag) / passed, lag, at: performance.now() });
    lags.set(name, known);
    if (lag === 0) return "none";
    return known.pace === null ? "–" : known.pace > 0 ? span(lag / known.pace) : "grows";
  }

  function updateDomains() {
    const found = Object.entries(value("domains", {}));
    domains.element.hidden = found.length === 0;
    domains.rows(found.map(([name, each]) => ({ key: name, wrong: each.stalls?.length > 0 || each.dead > 0, cells: [
      name, each.behind_s === null ? "–" : span(each.behind_s), number(each.waiting ?? 0), ...["processed", "late", "dead", "duplicate", "matches", "alerts"].map((one) => number(each[one] ?? 0))] })), "");
  }

  function updateTopics() {
    const traffic = value("traffic", null);
    const names = Object.keys(traffic?.messages ?? {});
    const until = trafficBucket(traffic);
    topics.rows(names.map((name) => {
      const rates = value(`traffic/${name}`, []);
      return { key: name, cells: [name, number(traffic.messages[name]), rateText(rateShown(traffic, [name], rates, until)), name in traffic.bytes ? bytes(traffic.bytes[name]) : "–"] };
    }), value("source", {}).problem ? "No message could be read." : "No messages have been read yet.");
  }

  return { element, update, leave() { graph.leave(); tail.leave(); } };
}

export const rateText = (rate) => short(Math.round(rate * 10) / 10);

/** The bucket of the traffic at the shown instant, which is the last full one where that is the newest. */
export function trafficBucket(traffic) {
  if (!traffic || traffic.used === 0) return -1;
  const at = time.writtenAt();
  const last = Math.max(traffic.used - 2, 0);
  return at === null ? last : Math.min(Math.max(Math.floor((at - traffic.start) / traffic.width), 0), last);
}

/**
 * Messages in a second of some topics: at the shown instant, or, of a recording that is shown at its end, over the time
 * from their first message to their last.
 */
export function rateShown(traffic, names, rates, place) {
  if (time.isLive() && !value("source", {}).live) {
    const spans = names.map((each) => traffic.spans[each]).filter(Boolean);
    const length = Math.max(...spans.map((each) => each[1])) - Math.min(...spans.map((each) => each[0]));
    return spans.length ? names.reduce((sum, each) => sum + traffic.messages[each], 0) / (Math.max(length, LEAST_US) / 1e6) : 0;
  }
  return rateAt(rates, place, Math.max(Math.ceil(RATE_US / traffic.width), 2));
}

function rateAt(rates, place, most) {
  const few = rates.slice(Math.max(place - most, 0), place + 1);
  return few.length ? few.reduce((sum, each) => sum + (each ?? 0), 0) / few.length : 0;
}

/** A table of texts; with `choose` the first of a row is a button that calls it. */
function table(title, columns, choose) {
  const body = h("tbody");
  const empty = h("p", { class: "hint" });
  const heads = columns.map((each) => h("th", { scope: "col", class: TEXTS.includes(each) ? "text" : "" }, each));
  const inner = h("table", {}, h("thead", {}, h("tr", {}, heads)), body);
  const heading = h("h3", {}, title);
  const element = h("section", { class: "panel" }, heading, empty, h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": title }, inner));
  return {
    element,
    title: heading,
    head: (name, text) => setText(heads[columns.indexOf(name)], text),
    rows(items, text) {
      empty.hidden = items.length > 0;
      inner.hidden = items.length === 0;
      setText(empty, text);
      keyed(body, items, (each) => each.key, (each) => h("tr", {}, each.cells.map((_, place) => h(place ? "td" : "th", place ? { class: TEXTS.includes(columns[place]) ? "text" : "" } : { scope: "row" },
        choose && !place ? h("button", { type: "button", class: "link", title: "Show its newest messages", onclick: (event) => choose(each.key, event.currentTarget) }) : null))), (child, each) => {
        child.setAttribute("class", each.wrong ? "wrong" : "");
        each.cells.forEach((cell, place) => {
          setText(choose && !place ? child.firstChild.firstChild : child.children[place], String(cell));
          child.children[place].dataset.label = heads[place].textContent;
        });
      });
    },
  };
}
