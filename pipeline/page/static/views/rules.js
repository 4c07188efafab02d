// Rules: those that run, an editor for them, what the server says of a text, and what it would have found.

import { h, setText } from "../dom.js";
import { counted, number } from "../format.js";
import { changed, value } from "../store.js";
import * as time from "../time.js";
import { listRules, post } from "../rules/api.js";
import { automatonView } from "../rules/automaton.js";
import { codeEditor } from "../rules/editor.js";
import { publishPanel } from "../rules/publish.js";
import { resultView } from "../rules/result.js";

const CHECK_MS = 250;
const TRY_MS = 350;
const NEW = `rules:
  - name: my_rule
    description: What it finds, in a sentence.
    by: key
    within: 10s
    seq:
      - {as: first, stream: axon_1, where: "value > 10"}
      - {as: second, stream: axon_2, where: "value > first.value"}
    skip: past_last
    emit: {integrated_value: "first.value + second.value"}
`;
/** What is being edited outlives the view: texts by file, the open file and rule. */
const state = { files: null, drafts: new Map(), open: null, rule: null, automatic: false };

export function rulesView(chosen) {
  const list = h("div", { class: "rule-list" });
  const title = h("h2", {});
  const scope = h("button", { type: "button", onclick: () => open(state.open, state.rule ? null : ruleAtCursor()) });
  const status = h("p", { class: "check-status", role: "status" });
  const problems = h("ol", { class: "problems", "aria-label": "Problems" });
  const warnings = h("ol", { class: "warnings", "aria-label": "Warnings" });
  const automata = h("div", { class: "automata" });
  const history = h("p", { class: "hint", role: "status" });
  const outcome = h("div", { class: "outcome" });
  const run = h("button", { type: "button", class: "main", onclick: () => tryIt(true) }, "Try over the history");
  const again = h("button", { type: "button", onclick: () => tryIt(true, true), title: "Read the history anew, with what has come since" }, "Read anew");
  const stop = h("button", { type: "button", hidden: true, onclick: () => post("cancel", {}) }, "Stop");
  const copy = h("button", { type: "button", onclick: copyText }, "Copy");
  const save = h("button", { type: "button", onclick: download }, "Download");
  const revert = h("button", { type: "button", onclick: discard }, "Discard edits");
  const publish = publishPanel({ text: () => wholeText(), name: () => state.open, file: () => fileOf(state.open), published: () => load(true) });
  const editor = codeEditor({ label: "Rule file", onInput: edited, onRun: () => tryIt(true) });
  const work = h("div", { class: "workbench", hidden: true },
    h("header", {}, title, h("div", { class: "row" }, scope, copy, save, revert)),
    editor.element, status, problems, warnings, publish.element,
    h("div", { class: "row" }, run, stop, again, history), outcome,
    h("details", { class: "drawn", open: true }, h("summary", {}, "Automaton"), automata));
  const empty = h("div", { class: "empty" }, h("h2", {}, "Rules against history"),
    h("p", {}, "Open a rule to edit it: its text is checked as you type, and what it would have found in the events so far appears beside what the old one did."));
  const element = h("section", { class: "rules", "aria-label": "Rules" }, list, h("div", { class: "left" }, empty, work));
  let checkTimer = 0;
  let tryTimer = 0;
  let asked = 0;
  let tried = 0;
  let head = "";
  let tail = "";
  let result = null;
  let last = null;
  let left = false;
  let triedText = "";

  async function load(keep) {
    const answer = await listRules();
    if (left) return;
    if (answer.error) {
      list.replaceChildren(h("p", { class: "error" }, answer.error));
      return;
    }
    state.files = answer;
    for (const file of answer.files) if (state.drafts.get(file.name) === file.text) state.drafts.delete(file.name);
    publish.set(answer.write);
    drawList();
    if (keep) check();
    else if (state.open !== null) open(state.open, state.rule);
    else if (chosen) openRule(chosen);
    changed();
  }

  const fileOf = (name) => state.files?.files.find((each) => each.name === name) ?? null;
  const textOf = (name) => state.drafts.get(name) ?? fileOf(name)?.text ?? "";

  function openRule(name) {
    const file = state.files.files.find((each) => each.outline.some((one) => one.name === name));
    if (file) open(file.name, name);
  }

  /** Open a file, or one of its rules alone, which keeps its line numbers. */
  function open(name, rule) {
    const other = state.open !== name;
    state.open = name;
    state.rule = rule;
    const text = textOf(name);
    const place = rule ? (outlineOf(text, name) ?? []).find((each) => each.name === rule) : null;
    if (rule && !place) state.rule = null;
    const lines = text.split("\n");
    head = place ? lines.slice(0, place.line - 1).map((each) => `${each}\n`).join("") : "";
    tail = place ? lines.slice(place.last).map((each) => `\n${each}`).join("") : "";
    editor.set(place ? lines.slice(place.line - 1, place.last).join("\n") : text, place ? place.line : 1);
    empty.hidden = true;
    work.hidden = false;
    setText(title, state.rule ? `${state.rule.replaceAll("_", " ")} in ${name}` : name);
    window.history.replaceState(null, "", `#rules/${encodeURIComponent(state.rule ?? "")}`);
    if (other) {
      dropResult();
      last = null;
    }
    drawList();
    check();
  }

  /** The outline of the edited text is the last one that the server found in it. */
  const outlineOf = (text, name) => (last && last.text === text && last.name === name ? last.outline : text === fileOf(name)?.text ? fileOf(name).outline : last?.outline);

  function ruleAtCursor() {
    const area = editor.element.querySelector("textarea");
    const line = area.value.slice(0, area.selectionStart).split("\n").length;
    return (last?.outline ?? []).find((each) => each.kind === "rule" && line >= each.line && line <= each.last)?.name ?? null;
  }

  const wholeText = () => head + editor.text + tail;

  function edited() {
    const text = wholeText();
    if (text === fileOf(state.open)?.text) state.drafts.delete(state.open);
    else state.drafts.set(state.open, text);
    clearTimeout(checkTimer);
    clearTimeout(tryTimer);
    checkTimer = setTimeout(check, CHECK_MS);
    outcome.classList.toggle("stale", text !== triedText);
    drawList();
    publish.close();
  }

  async function check() {
    const number_ = ++asked;
    const [name, text] = [state.open, wholeText()];
    const answer = await post("check", { name, text });
    if (number_ !== asked || left) return;
    if (answer.error) {
      status.className = "check-status bad";
      setText(status, answer.error);
      return;
    }
    last = { ...answer, name, text, outline: answer.outline.length ? answer.outline : last?.outline ?? [] };
    editor.show(answer.problems);
    status.className = `check-status ${answer.problems.length ? "bad" : "good"}`;
    setText(status, answer.problems.length ? counted(answer.problems.length, "problem", "problems") : `Valid: ${counted(answer.rules.length, "rule", "rules")}.`);
    problems.replaceChildren(...answer.problems.map((each) => h("li", {}, each.line === null ? h("span", {}, each.text)
      : h("button", { type: "button", class: "link", onclick: () => goTo(each) }, each.text))));
    warnings.replaceChildren(...answer.warnings.map((each) => h("li", {}, each)));
    const drawn = answer.rules.filter((each) => !state.rule || each.name === state.rule || !answer.rules.some((one) => one.name === state.rule));
    if (!answer.problems.length) automata.replaceChildren(...drawn.map(automatonView));
    automata.classList.toggle("stale", answer.problems.length > 0);
    scope.hidden = !state.rule && !(last.outline ?? []).some((each) => each.kind === "rule");
    setText(scope, state.rule ? "Whole file" : "Only the rule at the cursor");
    run.disabled = answer.problems.length > 0 || Boolean(state.files.history);
    publish.allow(!answer.problems.length);
    updateButtons();
    if (answer.problems.length) dropTrial();
    if (!answer.problems.length && state.automatic && !state.files.history) {
      clearTimeout(tryTimer);
      tryTimer = setTimeout(() => tryIt(false), TRY_MS);
    }
  }

  function goTo(problem) {
    if (state.rule && (problem.line <= head.split("\n").length - 1 || problem.line > head.split("\n").length - 1 + editor.text.split("\n").length)) open(state.open, null);
    editor.goTo(problem.line, problem.column);
  }

  async function tryIt(wanted, anew = false) {
    if (run.disabled) return;
    clearTimeout(tryTimer);
    state.automatic = true;
    const number_ = ++tried;
    const [name, text] = [state.open, wholeText()];
    stop.hidden = false;
    outcome.classList.add("stale");
    updateButtons();
    const answer = await post("try", { name, text, again: anew });
    if (left || number_ !== tried) return;
    stop.hidden = true;
    updateButtons();
    if (answer.superseded) {
      if (wanted) setText(history, "Stopped, or another browser tries a rule.");
      return;
    }
    triedText = text;
    outcome.classList.toggle("stale", wholeText() !== triedText);
    dropResult();
    const said = answer.error ?? answer.failed ?? answer.unavailable;
    if (said) {
      outcome.replaceChildren(h("p", { class: "error", role: "alert" }, said));
      return;
    }
    result = resultView(answer.result);
    outcome.replaceChildren(result.element);
    changed();
  }

  /** What is tried of an older text means nothing beside the problems of this one. */
  function dropTrial() {
    clearTimeout(tryTimer);
    if (stop.hidden) return;
    tried++;
    stop.hidden = true;
    updateButtons();
    post("cancel", {});
  }

  function dropResult() {
    result?.dispose();
    result = null;
    outcome.replaceChildren();
  }

  function discard() {
    state.drafts.delete(state.open);
    if (fileOf(state.open)) open(state.open, state.rule);
    else closeAll();
    updateButtons();
  }

  function closeAll() {
    state.open = state.rule = null;
    work.hidden = true;
    empty.hidden = false;
    drawList();
  }

  async function copyText() {
    try {
      await navigator.clipboard.writeText(wholeText());
      setText(copy, "Copied");
    } catch {
      editor.focus();
      setText(copy, "Select and copy");
    }
    setTimeout(() => setText(copy, "Copy"), 1500);
  }

  function download() {
    const url = URL.createObjectURL(new Blob([wholeText()], { type: "application/yaml" }));
    const link = h("a", { href: url, download: `${state.open}.yaml` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 1000);
  }

  function create() {
    const taken = new Set(state.files.files.map((each) => each.name));
    let name = "my_rules";
    for (let place = 2; taken.has(name) || state.drafts.has(name); place++) name = `my_rules_${place}`;
    state.drafts.set(name, NEW);
    open(name, null);
    editor.focus();
  }

  function updateButtons() {
    revert.hidden = !state.drafts.has(state.open);
    const progress = value("rules/history", null);
    again.hidden = !result || !value("source", {}).live;
    setText(history, state.files?.history ?? (stop.hidden ? "" : progress?.state === "reading" ? `Reading the history, once: ${number(progress.messages)} messages …` : "Trying …"));
  }

  function drawList() {
    const files = state.files?.files ?? [];
    const names = [...files.map((each) => each.name), ...[...state.drafts.keys()].filter((each) => !files.some((one) => one.name === each))];
    const focused = document.activeElement?.dataset?.open;
    list.replaceChildren(
      state.files?.problem ? h("p", { class: "error" }, state.files.problem) : "",
      ...names.map((name) => {
        const file = fileOf(name);
        const rules = (state.open === name && last?.name === name ? last.outline : file?.outline ?? []).filter((each) => each.kind === "rule");
        const tags = [file?.published ? "published" : null, file ? null : "new", state.drafts.has(name) && file ? "edited" : null].filter(Boolean);
        return h("section", {}, h("h3", {}, opener(name, null, name), tags.map((each) => h("span", { class: "tag" }, each))),
          h("ul", {}, rules.map((each) => h("li", {}, opener(name, each.name, each.name.replaceAll("_", " ")),
            file?.overridden[each.name] ? h("span", { class: "numbers" }, `not in force: ${file.overridden[each.name]} has it`) : h("span", { class: "numbers", "data-rule": each.name })))),
          file?.beneath.length ? h("p", { class: "hint" }, `In force from the workers' own file of that name: ${file.beneath.join(", ")}.`) : null);
      }),
      h("button", { type: "button", onclick: create }, "New rule"));
    if (focused) list.querySelector(`[data-open="${CSS.escape(focused)}"]`)?.focus();
    updateCounts();
  }

  function opener(file, rule, label) {
    const isOpen = state.open === file && state.rule === rule;
    return h("button", { type: "button", class: "link", "data-open": `${file}/${rule ?? ""}`, "aria-current": isOpen ? "true" : null, onclick: () => { open(file, rule); editor.focus(); } }, label);
  }

  function updateCounts() {
    const [alerts, matches] = [value("rules/alerts", {}), value("rules/matches", {})];
    for (const each of list.querySelectorAll("[data-rule]")) {
      const name = each.dataset.rule;
      const [found, raised] = [matches[name] ?? 0, alerts[name] ?? 0];
      setText(each, found || raised ? `${counted(found, "match", "matches")}${raised ? `, ${counted(raised, "alert", "alerts")}` : ""}${time.whenNotHeld()}` : "none found");
    }
  }

  function update() {
    updateCounts();
    if (!work.hidden) updateButtons();
    result?.update();
  }

  load(false);
  return { element, update, leave() {
    left = true;
    clearTimeout(checkTimer);
    clearTimeout(tryTimer);
    dropResult();
  } };
}
