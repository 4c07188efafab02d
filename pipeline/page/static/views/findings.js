// Findings: alerts and multi events as they come, with filters; one of them is shown with the reasons for it.

import { h, keyed, setText } from "../dom.js";
import { counted, elapsed, number, utc } from "../format.js";
import { foundUntilShown } from "../found.js";
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

  /** Findings that are kept of the kinds that are shown, up to the shown instant, by time. */
  function keptOf(run) {
    const feeds = [["alert", "findings/alerts"], ["match", "findings/matches"]].filter(([name]) => !filter.kind || filter.kind === name);
    const newest = feeds.map(([, name]) => value(name, { items: [], first: 0 }));
    const there = newest.flatMap((feed) => feed.items);
    // Of a past that is older than the newest ones the server keeps some of every moment.
    if (!time.isLive() && run && newest.some((feed) => feed.first > 0)) {
      askPast(run);
      const known = new Set(there.map((each) => each.id));
      there.push(...past.items.filter((each) => each.run === run.name && !known.has(each.id) && (!filter.kind || each.kind === filter.kind)));
    }
    return there.filter((each) => time.isLive() || each.run !== run?.name || each.t <= time.at()).sort((a, b) => a.t - b.t);
  }

  function askPast(run) {
    const now = JSON.stringify([run.name, Math.round(time.at())]);
    if (now === past.asked || past.busy) return;
    past.busy = true;
    ask("/api/findings", { run: run.name, at: Math.round(time.at()) }).then((answer) => {
      Object.assign(past, { asked: now, busy: false, items: answer.items ?? past.items });
      changed();
    });
  }

  function matching(all) {
    const words = filter.text.toLowerCase();
    return all.filter((each) =>
      (!filter.rule || each.rule === filter.rule) && (!filter.severity || each.severity === filter.severity)
      && (!words || `${each.key ?? ""} ${each.message ?? ""} ${each.rule}`.toLowerCase().includes(words)));
  }

  /** How many there are, how many of them are kept, and how many of those the filters leave. */
  function said(kept, found) {
    const all = foundUntilShown();
    const parts = [`${counted(all.alerts, "alert")} and ${counted(all.matches, "multi event")} ${time.isLive() ? "in all" : "up to the shown instant"}`];
    for (const [kind, total, one] of [["alert", all.alerts, "alert"], ["match", all.matches, "multi event"]]) {
      const own = kept.filter((each) => each.kind === kind).length;
      if ((!filter.kind || filter.kind === kind) && own < total) parts.push(`${number(own)} of ${counted(total, one)} kept`);
    }
    return [...parts, `${number(found.length)} ${found.length === 1 ? "matches" : "match"} the filters`].join("; ");
  }

  function update() {
    const run = time.run();
    const totals = [value("rules/alerts", {}), value("rules/matches", {})];
    const names = [...new Set(totals.flatMap((each) => Object.keys(each)))].sort();
    if (names.join() !== rules) {
      rules = names.join();
      rule.replaceChildren(h("option", { value: "" }, "all"), ...names.map((name) => h("option", { value: name }, name)));
      rule.value = filter.rule;
    }
    const kept = keptOf(run);
    const found = matching(kept);
    shown = found.slice(-MOST).reverse();
    setText(count, said(kept, found));
    empty.hidden = shown.length > 0;
    list.hidden = shown.length === 0;
    if (!shown.length) {
      const broken = Boolean(value("source", {}).problem);
      empty.replaceChildren(
        h("h2", {}, kept.length ? "Nothing matches the filters" : broken ? "Nothing was found" : "Nothing found yet"),
        h("p", {}, kept.length
          ? "Choose another rule or severity, or “both” kinds."
          : broken ? "There is no alert and no multi event in what could be read."
            : "Alerts and multi events appear here as rules match. astrocyte rules check FILE says whether a rule can match at all."));
    }
    more.hidden = found.length <= MOST;
    setText(more, `The newest ${number(shown.length)} are listed. All of them: astrocyte tap alerts, astrocyte tap multi.events.`);
    keyed(list, shown, (each) => each.id, (each) => row(each, choose), (child, each) => {
      child.setAttribute("aria-selected", String(each.id === selected));
      const owner = time.runs().find((one) => one.name === each.run);
      const status = value("findings/statuses", {})[each.id];
      child.classList.toggle("retracted", status === "retracted");
      setText(child.querySelector(".status"), status === "confirmed" ? "" : status ?? "");
      setText(child.querySelector("time"), owner ? elapsed(each.t - owner.oldest, owner.newest - owner.oldest) : utc(each.t).slice(0, 19));
    });
    list.setAttribute("aria-activedescendant", shown.some((each) => each.id === selected) ? idOf({ id: selected }) : "");
    if (selected && !why.shows(selected)) {
      const finding = kept.find((each) => each.id === selected);
      if (finding) why.show(finding);
    }
  }

  return { element, update, leave() {} };
}

const idOf = (finding) => `finding-${finding.id}`;

function row(finding, choose) {
  const values = Object.entries(finding.values ?? {}).map(([name, each]) => `${name.replaceAll("_", " ")} ${number(each)}`).join(", ");
  const text = finding.kind === "alert" ? finding.message : `${counted(finding.sources, "event")}${values ? `, ${values}` : ""}`;
  return h("li", { id: idOf(finding), role: "option", class: finding.severity || "match", onclick: () => choose(finding) },
    h("time", { title: `${utc(finding.t)} UTC` }),
    h("span", { class: "severity" }, finding.severity || "match"),
    h("span", { class: "what" }, h("b", {}, finding.rule.replaceAll("_", " ")), h("span", { class: "status" }), h("span", {}, text)),
    finding.key && finding.key !== finding.run ? h("span", { class: "key" }, String(finding.key)) : null);
}
