// Findings: alerts and multi events as they come, with filters; one of them is shown with the reasons for it.

import { h, keyed, setText } from "../dom.js";
import { elapsed, number, utc } from "../format.js";
import { ask, changed, value } from "../store.js";
import * as time from "../time.js";
import { whyPanel } from "./why.js";

const MOST = 200;
const filter = { text: "", rule: "", severity: "", kind: "alert" };

export function findingsView(chosen) {
  const count = h("p", { class: "count", role: "status" });
  const list = h("ul", { class: "findings", role: "listbox", "aria-label": "Findings", tabindex: "0", onkeydown: keys });
  const empty = h("div", { class: "empty" });
  const more = h("p", { class: "more" });
  const rule = h("select", { onchange: (event) => set("rule", event.target.value) });
  const severity = h("select", { onchange: (event) => set("severity", event.target.value) },
    ["", "critical", "warning", "info"].map((each) => h("option", { value: each }, each || "all")));
  const kind = h("select", { onchange: (event) => set("kind", event.target.value) },
    [["alert", "alerts"], ["match", "multi events"], ["", "both"]].map(([each, label]) => h("option", { value: each }, label)));
  const text = h("input", { type: "search", placeholder: "key or message", oninput: (event) => set("text", event.target.value) });
  rule.append(h("option", { value: "" }, "all"));
  kind.value = filter.kind;
  severity.value = filter.severity;
  text.value = filter.text;
  const bar = h("form", { class: "filters", "aria-label": "Filters", onsubmit: (event) => event.preventDefault() },
    h("label", {}, "Show ", kind), h("label", {}, "Rule ", rule), h("label", {}, "Severity ", severity), h("label", { class: "grow" }, "Search ", text));
  const why = whyPanel();
  const element = h("section", { class: "split", "aria-label": "Findings" },
    h("div", { class: "left" }, bar, count, empty, list, more), why.element);
  let selected = chosen ?? null;
  let shown = [];
  let rules = "";
  const past = { asked: "", busy: false, items: [] };

  function set(name, body) {
    filter[name] = body;
    changed();
  }

  function keys(event) {
    const place = shown.findIndex((each) => each.id === selected);
    const moves = { ArrowDown: place + 1, ArrowUp: place - 1, Home: 0, End: shown.length - 1 };
    if (!(event.key in moves) || !shown.length) return;
    event.preventDefault();
    choose(shown[Math.min(Math.max(moves[event.key], 0), shown.length - 1)]);
  }

  function choose(finding) {
    selected = finding.id;
    history.replaceState(null, "", `#findings/${encodeURIComponent(finding.id)}`);
    why.show(finding);
    changed();
    requestAnimationFrame(() => document.getElementById(idOf(finding))?.scrollIntoView({ block: "nearest" }));
  }

  function matching(all, run, at) {
    const words = filter.text.toLowerCase();
    return all.filter((each) =>
      (!filter.kind || each.kind === filter.kind) && (!filter.rule || each.rule === filter.rule)
      && (!filter.severity || each.severity === filter.severity)
      && (!words || `${each.key ?? ""} ${each.message ?? ""} ${each.rule}`.toLowerCase().includes(words))
      && (time.isLive() || each.run !== run?.name || each.t <= at));
  }

  /** Findings of a past that is older than the newest ones, of which the server keeps some of every moment. */
  function pastOf(run, feed) {
    const oldest = feed.items.find((each) => each.run === run?.name);
    if (time.isLive() || !run || feed.first === 0 || (oldest && oldest.t <= time.at())) return null;
    const now = JSON.stringify([run.name, Math.round(time.at())]);
    if (now !== past.asked && !past.busy) {
      past.busy = true;
      ask("/api/findings", { run: run.name, at: Math.round(time.at()) }).then((answer) => {
        Object.assign(past, { asked: now, busy: false, items: answer.items ?? [] });
        changed();
      });
    }
    return past.items;
  }

  function update() {
    const run = time.run();
    const newest = value("findings", { items: [], first: 0 });
    const ofPast = pastOf(run, newest);
    const feed = ofPast === null ? newest : { items: ofPast, first: 1 };
    const totals = [value("rules/alerts", {}), value("rules/matches", {})];
    const names = [...new Set(totals.flatMap((each) => Object.keys(each)))].sort();
    if (names.join() !== rules) {
      rules = names.join();
      rule.replaceChildren(h("option", { value: "" }, "all"), ...names.map((name) => h("option", { value: name }, name)));
      rule.value = filter.rule;
    }
    const found = matching(feed.items, run, time.at());
    shown = found.slice(-MOST).reverse();
    const all = totals.map((each) => Object.values(each).reduce((sum, one) => sum + one, 0));
    setText(count, `${number(all[0])} alerts and ${number(all[1])} multi events in all; ${number(found.length)} match the filters${time.isLive() ? "" : " at the shown instant"}`);
    empty.hidden = shown.length > 0;
    list.hidden = shown.length === 0;
    if (!shown.length) {
      empty.replaceChildren(
        h("h2", {}, feed.items.length ? "Nothing matches the filters" : "Nothing found yet"),
        h("p", {}, feed.items.length
          ? "Choose another rule or severity, or “both” kinds."
          : "Alerts and multi events appear here as rules match. astrocyte rules check FILE says whether a rule can match at all."));
    }
    more.hidden = found.length <= MOST && feed.first === 0;
    setText(more, ofPast !== null ? "Of this time some findings of every moment are kept. All of them: astrocyte tap alerts, astrocyte tap multi.events." : `The newest ${number(shown.length)} are listed. All of them: astrocyte tap alerts, astrocyte tap multi.events.`);
    keyed(list, shown, (each) => each.id, (each) => row(each, choose), (child, each) => {
      child.setAttribute("aria-selected", String(each.id === selected));
      const owner = time.runs().find((one) => one.name === each.run);
      setText(child.querySelector("time"), owner ? elapsed(each.t - owner.oldest, owner.newest - owner.oldest) : utc(each.t).slice(0, 19));
    });
    list.setAttribute("aria-activedescendant", shown.some((each) => each.id === selected) ? idOf({ id: selected }) : "");
    if (selected && !why.shows(selected)) {
      const finding = feed.items.find((each) => each.id === selected);
      if (finding) why.show(finding);
    }
  }

  return { element, update, leave() {} };
}

const idOf = (finding) => `finding-${finding.id}`;

function row(finding, choose) {
  const values = Object.entries(finding.values ?? {}).map(([name, each]) => `${name.replaceAll("_", " ")} ${number(each)}`).join(", ");
  const text = finding.kind === "alert" ? finding.message : `${finding.sources} events${values ? `, ${values}` : ""}`;
  return h("li", { id: idOf(finding), role: "option", class: finding.severity || "match", onclick: () => choose(finding) },
    h("time", { title: `${utc(finding.t)} UTC` }),
    h("span", { class: "severity" }, finding.severity || "match"),
    h("span", { class: "what" }, h("b", {}, finding.rule.replaceAll("_", " ")), h("span", {}, text)),
    finding.key && finding.key !== finding.run ? h("span", { class: "key" }, String(finding.key)) : null);
}
