// What a change of rules changes over the history: counts, matches over time, keys, and single matches with their reasons.

import { MARGIN, chartBox, drawAxes, drawLegend, drawMarks, readAt, timeScale } from "../charts/frame.js";
import { bounds } from "../charts/scale.js";
import { h, s } from "../dom.js";
import { elapsed, number, span, utc } from "../format.js";
import * as time from "../time.js";
import { whyPanel } from "../views/why.js";
import { post } from "./api.js";

const COLUMNS = 60;
const LISTS = [["only_before", "only before"], ["only_after", "only after"], ["both", "in both"]];

export function resultView(result) {
  const boxes = [];
  const head = h("p", { class: "count", role: "status" },
    `${number(result.events)} events${result.from === null ? "" : ` over ${span((result.to - result.from) / 1e6)}`}, ${number(result.late)} late, ${number(result.refused)} refused; tried in ${span(result.took_s)}`);
  const same = result.unchanged.length ? h("p", { class: "hint" }, `Not affected: ${result.unchanged.map((each) => each.replaceAll("_", " ")).join(", ")}.`) : null;
  const none = result.rules.length ? null : h("div", { class: "empty" }, h("h2", {}, "Nothing has changed"), h("p", {}, "The rules are those that run: edit one, and what it would have found appears here beside what it did find."));
  const element = h("section", { class: "result", "aria-label": "Result" }, head,
    result.anew ? h("p", { class: "hint" }, "The streams, declarations or validators have changed, so all rules were run anew.") : null,
    none, result.rules.map((rule) => ruleResult(rule, result, boxes)), same);
  return { element, update: () => boxes.forEach((box) => box.redraw()), dispose: () => boxes.forEach((box) => box.dispose()) };
}

function ruleResult(rule, result, boxes) {
  const box = chart(rule, result);
  boxes.push(box);
  return h("article", { class: `rule-result ${rule.kind}` },
    h("header", {}, h("h3", {}, rule.name.replaceAll("_", " ")), h("span", { class: "tag" }, rule.kind)),
    h("div", { class: "parts" }, box.element, figures(rule), keys(rule)),
    lists(rule));
}

/** Matches before and after over the time of the run, with buckets joined so that single matches do not make a comb. */
function chart(rule, result) {
  const joined = Math.max(Math.ceil(result.used / COLUMNS), 1);
  const columns = Math.ceil(result.used / joined);
  const width = result.width * joined;
  const counted = (side) => Array.from({ length: columns }, (_, place) => side.buckets.slice(place * joined, (place + 1) * joined).reduce((sum, each) => sum + each, 0));
  const sides = [["before", rule.before, 1], ["after", rule.after, 0]].filter(([, side]) => side).map(([label, side, colour]) => ({ label, colour, counts: counted(side) }));
  const box = chartBox({ title: "Matches", unit: `in ${span(width / 1e6)}`, note: "" }, { height: 150, wide: true, draw });
  function draw() {
    const run = time.run();
    const scale = timeScale(box, Math.min(result.start + result.used * result.width, run.start + run.used * run.width * 1.35));
    const [low, high] = bounds(sides.map((side) => [0, ...side.counts]));
    const bottom = box.height - MARGIN.bottom;
    const y = (each) => bottom - ((each - low) / (high - low)) * (bottom - MARGIN.top);
    drawAxes(box, scale, y, low, high);
    const x = (place) => scale.x(result.start + place * width).toFixed(1);
    const steps = (counts) => counts.map((each, place) => `${place ? "V" : `M${x(0)} `}${y(each).toFixed(1)}H${x(place + 1)}`).join("");
    box.layers.data.replaceChildren(...sides.flatMap(({ counts, colour, label }) => [
      label === "before" ? s("path", { class: `area c${colour}`, d: `${steps(counts)}V${bottom}H${x(0)}Z` }) : "",
      s("path", { class: `line c${colour}`, d: steps(counts) })]).filter(Boolean));
    drawMarks(box, scale);
    const place = Math.min(Math.max(Math.floor((readAt() - result.start) / width), 0), columns - 1);
    drawLegend(box, sides.map(({ label, colour, counts }) => ({ label, colour, always: true, text: number(counts[place] ?? 0) })));
  }
  return box;
}

function figures(rule) {
  const share = (each) => (each === null || each === undefined ? "–" : number(Math.round(each * 1000) / 1000));
  const planted = rule.after?.score ?? rule.before?.score;
  const rows = [["matches", (side) => number(side.matches)], ["alerts", (side) => number(side.alerts)],
    ["alerts held back", (side) => (side.suppressed + side.grouped ? number(side.suppressed + side.grouped) : null)], ["keys", (side) => number(side.keys)],
    ["precision", (side) => (side.score ? share(side.score.precision) : null)], ["recall", (side) => (side.score ? share(side.score.recall) : null)],
    ["delay, median", (side) => (side.score ? (side.score.delay_s ? span(side.score.delay_s.p50) : "–") : null)]];
  const shown = rows.filter(([, of]) => [rule.before, rule.after].some((side) => side && of(side) !== null));
  return h("div", { class: "panel" }, h("table", {},
    h("thead", {}, h("tr", {}, ["", "before", "after"].map((each) => h("th", { scope: "col" }, each)))),
    h("tbody", {}, shown.map(([name, of]) => h("tr", {}, h("th", { scope: "row" }, name), [rule.before, rule.after].map((side) => h("td", {}, side ? of(side) ?? "–" : "–")))))),
  planted ? h("p", { class: "hint" }, `Scored against ${number(planted.planted)} planted anomalies.`) : null);
}

function keys(rule) {
  if (!rule.keys.length) return null;
  const most = Math.max(...rule.keys.map((each) => Math.max(each.before, each.after)), 1);
  return h("div", { class: "panel" }, h("h4", {}, "Keys with the most matches"), h("table", { class: "keys" },
    h("thead", {}, h("tr", {}, ["key", "before", "after"].map((each) => h("th", { scope: "col" }, each)))),
    h("tbody", {}, rule.keys.map((each) => h("tr", {}, h("th", { scope: "row" }, String(each.key ?? "all keys")),
      [["before", 1], ["after", 0]].map(([side, colour]) => h("td", {}, meter(each[side] / most, colour), number(each[side]))))))));
}

function meter(share, colour) {
  return s("svg", { class: `meter c${colour}`, viewBox: "0 0 40 8", preserveAspectRatio: "none", "aria-hidden": "true" }, s("rect", { width: share * 40, height: 8 }));
}

function lists(rule) {
  const counts = { only_before: rule.only_before, only_after: rule.only_after, both: rule.both };
  let shown = LISTS.map(([name]) => name).find((name) => counts[name]) ?? "both";
  let chosen = null;
  const tabs = h("div", { class: "tabs", role: "group", "aria-label": "Matches" });
  const list = h("ul", { class: "findings matches", role: "listbox", "aria-label": "Matches", tabindex: "0", onkeydown: move });
  const more = h("p", { class: "more" });
  const why = whyPanel({
    hint: "Choose a match: here appear its events and the conditions of its rule with their values.",
    lookUp: (finding) => post("why", { rule: rule.name, match: finding.n, after: finding.after }),
  });
  const element = h("div", { class: "split differences" }, h("div", { class: "left" }, tabs, list, more), why.element);

  function draw() {
    tabs.replaceChildren(...LISTS.map(([name, label]) => h("button", { type: "button", "aria-pressed": String(name === shown), disabled: !counts[name], onclick: () => { shown = name; chosen = null; draw(); tabs.querySelector("[aria-pressed=true]").focus(); } },
      `${label} `, h("b", {}, number(counts[name])))));
    const found = rule.lists[shown];
    list.hidden = !found.length;
    list.replaceChildren(...found.map((each) => h("li", { role: "option", id: idOf(each), class: shown === "only_before" ? "gone" : shown === "only_after" ? "come" : "match", "aria-selected": "false", onclick: () => choose(each) },
      h("time", { title: `${utc(each.t)} UTC` }, shownTime(each.t)), h("span", { class: "key" }, String(each.key ?? "all keys")))));
    list.removeAttribute("aria-activedescendant");
    more.hidden = counts[shown] <= found.length;
    more.textContent = `The newest ${number(found.length)} of ${number(counts[shown])} are listed.`;
  }

  const idOf = (each) => `match-${rule.name}-${shown}-${each.n}`;

  function choose(each) {
    chosen = each;
    for (const item of list.children) item.setAttribute("aria-selected", String(item.id === idOf(each)));
    list.setAttribute("aria-activedescendant", idOf(each));
    document.getElementById(idOf(each))?.scrollIntoView({ block: "nearest" });
    why.show({ id: idOf(each), n: each.n, after: shown !== "only_before", rule: rule.name, t: each.t, key: each.key, severity: "", run: "", place: null });
  }

  function move(event) {
    const found = rule.lists[shown];
    const place = found.indexOf(chosen);
    const moves = { ArrowDown: place + 1, ArrowUp: place - 1, Home: 0, End: found.length - 1 };
    if (!(event.key in moves) || !found.length) return;
    event.preventDefault();
    choose(found[Math.min(Math.max(moves[event.key], 0), found.length - 1)]);
  }

  draw();
  return element;
}

function shownTime(us) {
  const run = time.run();
  return run && us >= run.start && us <= run.start + run.used * run.width * 2 ? elapsed(us - run.start, run.used * run.width) : utc(us).slice(0, 19);
}
