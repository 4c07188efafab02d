// One individual of a tree: what the births tell of it, its ancestors and children, and the events that name it.

import { h } from "../dom.js";
import { elapsed, number, span, utc } from "../format.js";
import { ask } from "../store.js";
import * as time from "../time.js";

const SHOWN = 12;

export function individualPanel(choose, zoomTo) {
  const body = h("div", { class: "body" });
  const element = h("aside", { class: "why individual", "aria-label": "Individual", "aria-live": "polite" }, body);
  let shown = null;
  clear();

  function clear() {
    shown = null;
    body.replaceChildren(h("div", { class: "empty" }, h("h2", {}, "Who?"),
      h("p", {}, "Choose a line of the tree: here appear its genome, ancestors, children and events.")));
  }

  async function show(id, line) {
    shown = id;
    const run = time.run()?.name ?? "";
    const at = time.isLive() ? null : Math.round(time.at());
    const answer = await ask("/api/individual", { run, id, at });
    if (shown !== id) return;
    if (answer.error) {
      body.replaceChildren(h("h2", {}, id), h("p", { class: "error" }, answer.error));
      return;
    }
    const events = h("section", {}, h("h3", {}, "Genome and events"), h("p", { class: "busy" }, "Looking for the events …"));
    body.replaceChildren(head(answer, line, zoomTo), relatives("Ancestors", answer.ancestors, answer.more_ancestors, choose, "none: a founder"),
      relatives("Children", answer.children, answer.more_children, choose, "none"), events);
    const found = await ask("/api/individual/events", { run, id, at });
    if (shown === id) events.replaceChildren(...eventsPart(found, id));
  }

  return { element, show, clear };
}

const sinceStart = (us) => {
  const run = time.run();
  return elapsed(us - run.oldest, time.length());
};

function head({ kind, individual, second_parent: second }, line, zoomTo) {
  const facts = [
    ["born", individual.born === null ? `before ${sinceStart(individual.seen)}` : `${sinceStart(individual.born)} (${utc(individual.born)} UTC)`],
    ["died", individual.died === null ? "lives" : `${sinceStart(individual.died)}, ${span((individual.died - individual.seen) / 1e6)} old`],
    ["generation", individual.generation],
    ["second parent", second],
    ...Object.entries(individual.traits).map(([name, each]) => [name.replaceAll("_", " "), number(each)]),
    ["in its clade", line ? `${number(line.leaves)} in the tree, ${number(line.extinct)} died out` : null],
  ].filter(([, each]) => each !== null && each !== undefined);
  return h("header", {}, h("p", { class: "kind" }, kind), h("h2", {}, individual.id),
    h("dl", {}, facts.map(([name, each]) => [h("dt", {}, name), h("dd", {}, String(each))])),
    line && line.leaves > 1 ? h("p", {}, h("button", { type: "button", onclick: () => zoomTo(line) }, "Zoom to its clade")) : null);
}

function relatives(title, list, more, choose, none) {
  const item = (each) => h("li", {}, h("button", { type: "button", class: "link", onclick: () => choose(each.id) }, each.id), ` ${each.generation === null ? "" : `generation ${each.generation}, `}born ${sinceStart(each.seen)}`);
  const rest = list.slice(SHOWN);
  return h("section", {}, h("h3", {}, `${title} (${number(list.length + more)})`),
    list.length ? h("ol", {}, list.slice(0, SHOWN).map(item)) : h("p", { class: "hint" }, none),
    rest.length ? h("details", {}, h("summary", {}, `${number(rest.length)} more`), h("ol", {}, rest.map(item))) : null,
    more ? h("p", { class: "hint" }, `and ${number(more)} that are not listed`) : null);
}

function eventsPart(found, id) {
  if (found.error) return [h("h3", {}, "Genome and events"), h("p", { class: "error" }, found.error)];
  const genome = Object.entries(found.genome ?? {}).filter(([name]) => !name.endsWith("_id"));
  return [
    h("h3", {}, "Genome"),
    genome.length && found.genome_of !== id ? h("p", { class: "hint" }, `of its ancestor ${found.genome_of}: the samples of genomes hold none of its own`) : null,
    genome.length
      ? h("dl", {}, genome.map(([name, each]) => [h("dt", {}, name.replaceAll("_", " ")), h("dd", {}, shownValue(each, name))]))
      : h("p", { class: "hint" }, "not in the samples of genomes that were read"),
    h("h3", {}, `Events (${number(found.count)})`),
    found.events.length ? h("ol", { class: "attempts" }, found.events.map((each) => h("li", {}, h("b", {}, each.type), " ", h("span", { class: "stream" }, each.stream), " ", h("time", { title: `${utc(each.t)} UTC` }, sinceStart(each.t)),
      h("p", { class: "fields" }, Object.entries(each.fields).map(([name, one]) => h("span", {}, `${name} `, h("b", {}, shownValue(one, name)))))))) : h("p", { class: "hint" }, "none"),
    found.note ? h("p", { class: "hint" }, found.note) : null,
  ];
}

const shownValue = (each, name = "") => (typeof each === "number" && !name.endsWith("id") ? number(each) : Array.isArray(each) ? each.map((one) => shownValue(one)).join(", ") : String(each));
