// Why something was found: the events that it was made of, the conditions with their values, and what nearly matched.

import { h, setText } from "../dom.js";
import { counted, number, utc } from "../format.js";
import { ask } from "../store.js";

/** `lookUp` gives the lineage of a finding; without it, it is looked up where it was recorded. */
export function whyPanel({ hint, lookUp } = {}) {
  const body = h("div", { class: "body" });
  const element = h("aside", { class: "why", "aria-label": "Why", "aria-live": "polite" }, body);
  let shown = null;

  body.append(h("div", { class: "empty" }, h("h2", {}, "Why?"),
    h("p", {}, hint ?? "Choose a finding: here appear the events that it was made of, the conditions of its rule with their values, and what nearly matched.")));

  async function show(finding) {
    shown = finding.id;
    body.replaceChildren(head(finding), h("p", { class: "busy" }, "Looking up the lineage …"));
    const answer = lookUp ? await lookUp(finding) : await ask("/api/lineage", { id: finding.event ?? finding.id });
    if (shown !== finding.id) return;
    if (answer.error) {
      body.replaceChildren(head(finding), h("p", { class: "error" }, answer.error));
      return;
    }
    body.replaceChildren(...[head(finding), rulePart(answer.rule, finding), conditionsPart(answer.conditions),
      h("h3", {}, "Lineage"), lineage(answer.lineage, true), lookUp ? null : nearPart(finding)].filter(Boolean));
  }

  return { element, show, shows: (id) => shown === id };
}

function head(finding) {
  return h("header", { class: finding.severity || "match" },
    h("p", { class: "kind" }, finding.severity ? `${finding.severity} alert` : "multi event"),
    h("h2", {}, finding.rule.replaceAll("_", " ")),
    finding.message ? h("p", { class: "message" }, finding.message) : null,
    h("dl", {}, pairs([["event time", `${utc(finding.t)} UTC`], ["key", finding.key], ["run", finding.run || null], ["record", finding.place]])));
}

function pairs(entries) {
  return entries.filter(([, each]) => each !== null && each !== undefined && each !== "")
    .map(([name, each]) => [h("dt", {}, name), h("dd", {}, String(each))]);
}

function rulePart(rule) {
  if (!rule) return h("p", { class: "hint" }, "The page does not know this rule: start it with --rules FILE to see its conditions.");
  return h("section", {}, h("h3", {}, "Rule"), rule.description ? h("p", {}, rule.description) : null,
    h("p", { class: "facts" }, [rule.kind === "all" ? "all of its steps in any order" : "its steps in order", rule.within ? `within ${rule.within}` : null,
      rule.by ? `for each ${rule.by}` : "over all keys"].filter(Boolean).join(", ")));
}

function conditionsPart(conditions) {
  if (!conditions?.length) return null;
  return h("section", {}, h("h3", {}, "Conditions"),
    h("table", { class: "conditions" },
      h("thead", {}, h("tr", {}, ["step", "condition", "values"].map((each) => h("th", { scope: "col" }, each)))),
      h("tbody", {}, conditions.map((each) => h("tr", { class: each.held === false ? "failed" : "" },
        h("th", { scope: "row" }, held(each.held), each.step),
        h("td", {}, h("code", {}, each.condition)),
        h("td", {}, Object.entries(each.values).map(([name, one]) => h("div", {}, h("span", { class: "name" }, name), " ", h("b", {}, shownValue(one))))))))));
}

function held(answer) {
  const [mark, text] = answer === null ? ["?", "unknown"] : answer ? ["✓", "held"] : ["✗", "did not hold"];
  return h("span", { class: `verdict ${text.replaceAll(" ", "-")}`, title: text, "aria-label": text }, mark);
}

function shownValue(one) {
  if (one === null || one === undefined) return "null";
  if (typeof one === "number") return number(one);
  return typeof one === "string" ? one : JSON.stringify(one);
}

function lineage(found, open) {
  const values = { integrated_value: found.integrated_value, confidence: found.confidence, ...found.details };
  const facts = Object.entries(values).filter(([, each]) => each !== null && each !== undefined && typeof each !== "object");
  return h("div", { class: "lineage" },
    facts.length ? h("p", { class: "facts" }, facts.map(([name, each]) => h("span", {}, `${name.replaceAll("_", " ")} `, h("b", {}, shownValue(each))))) : null,
    found.note ? h("p", { class: "hint" }, found.note) : null,
    h("ol", {}, grouped(found.sources).map((group) => h("li", {}, sources(group, open)))),
    found.left_out ? h("p", { class: "hint" }, `${counted(found.left_out, "more event")} ${found.left_out === 1 ? "is" : "are"} left out here; astrocyte explain ${found.event_id} --json lists all.`) : null);
}

/** Neighbouring sources of one step together: a loop may have taken hundreds. */
function grouped(all) {
  const groups = [];
  for (const source of all) {
    const last = groups.at(-1);
    if (last && last[0].step === source.step && last[0].stream === source.stream && !source.made_of) last.push(source);
    else groups.push([source]);
  }
  return groups;
}

function sources(group, open) {
  if (group.length <= 3) return group.map((each) => source(each, open));
  return [source(group[0], open),
    h("details", {}, h("summary", {}, `${group.length - 2} more of step ${group[0].step ?? "?"}`), group.slice(1, -1).map((each) => source(each, false))),
    source(group.at(-1), open)];
}

function source(each, open) {
  const place = each.topic ? `${each.topic}[${each.partition}]@${each.offset}` : "no place of its own";
  const event = each.event ? { ...each.event, ...each.event.metadata, ...each.event.payload } : {};
  const hidden = ["metadata", "payload", "timestamp", "event_id", "source_stream", "stream", "lineage", "source_events"];
  const fields = Object.entries(event).filter(([name, one]) => !hidden.includes(name) && one !== null && typeof one !== "object");
  return h("div", { class: "source" },
    h("p", {}, each.step ? h("b", { class: "step" }, each.step) : null, h("span", { class: "stream" }, each.stream ?? "?"),
      h("time", {}, each.timestamp ? each.timestamp.replace("T", " ").replace("Z", "") : "")),
    h("p", { class: "place" }, h("code", {}, place), h("code", { class: "id", title: each.event_id }, each.event_id)),
    fields.length ? h("p", { class: "fields" }, fields.slice(0, 14).map(([name, one]) => h("span", {}, `${name} `, h("b", {}, shownValue(one))))) : null,
    each.made_of ? h("details", { open }, h("summary", {}, `made from ${counted(each.made_of.sources.length + (each.made_of.left_out ?? 0), "event")} by ${each.made_of.correlation_rule}`), lineage(each.made_of, false)) : null);
}

function nearPart(finding) {
  const result = h("div", { class: "near" });
  const button = h("button", { type: "button", async onclick() {
    const ending = new AbortController();
    const began = Date.now();
    const busy = h("p", { class: "busy", role: "status" }, "Running the rule over the recorded events …");
    const passed = h("span", { class: "hint" });
    const timer = setInterval(() => {
      setText(passed, `${number(Math.round((Date.now() - began) / 1000))} s of at most 120`);
      if (!result.isConnected) ending.abort();
    }, 1000);
    button.disabled = true;
    result.replaceChildren(busy, h("div", { class: "row" }, h("button", { type: "button", onclick: () => ending.abort() }, "Stop"), passed));
    const found = await ask("/api/near-misses", { rule: finding.rule, key: finding.key }, ending.signal);
    clearInterval(timer);
    button.disabled = false;
    result.replaceChildren(...(found.stopped ? [h("p", { class: "hint" }, "Stopped.")] : nearMisses(found)));
  } }, "Find near misses");
  return h("section", {}, h("h3", {}, "Near misses"), h("p", {}, "Partial matches of this rule and key that did not complete, and what each lacked."), button, result);
}

function nearMisses(found) {
  if (found.error || found.unavailable) return [h("p", { class: "hint" }, found.error ?? found.unavailable)];
  return [
    h("p", { class: "facts" }, `${counted(found.events, "event")} of its streams, ${counted(found.matches, "match", "matches")}, ${counted(found.missed, "partial match", "partial matches")} that ended without one`),
    h("table", { class: "conditions" },
      h("thead", {}, h("tr", {}, ["step", "fit", "failed most often"].map((each) => h("th", { scope: "col" }, each)))),
      h("tbody", {}, found.steps.map((step) => h("tr", {}, h("th", { scope: "row" }, step.step), h("td", {}, `${number(step.fitted)} of ${number(step.seen)}`),
        h("td", {}, Object.entries(step.failed).slice(0, 3).map(([part, count]) => h("div", {}, h("code", {}, part), ` ${number(count)}×`)),
          step.unjudged.map((part) => h("div", { class: "hint" }, h("code", {}, part), " depends on other events")),
          step.nearest ? h("div", { class: "hint" }, `nearest: ${step.nearest}`) : null))))),
    h("ol", { class: "attempts" }, found.attempts.map((each) => h("li", {},
      h("p", {}, h("time", {}, each.began.replace("T", " ").replace("Z", "")), ` took ${[...new Set(each.taken.map((one) => one.step))].join(", ") || "nothing"}`),
      h("p", { class: "hint" }, each.reason)))),
  ];
}

