// The page: its views, which of them is shown, and the connection.

import { h, setText } from "./dom.js";
import { number } from "./format.js";
import { foundUntilShown } from "./found.js";
import { changed, connect, listen, state, value } from "./store.js";
import * as time from "./time.js";
import { timeBar, timeKeys } from "./timebar.js";
import { findingsView } from "./views/findings.js";
import { pipelineView } from "./views/pipeline.js";
import { rulesView } from "./views/rules.js";
import { treeView } from "./views/tree.js";
import { worldView } from "./views/world.js";

const VIEWS = { world: worldView, tree: treeView, findings: findingsView, pipeline: pipelineView, rules: rulesView };
const main = document.getElementById("view");
const updateTime = timeBar(document.getElementById("time"));
let view = null;
let name = "";

function route() {
  const [wanted, rest] = location.hash.slice(1).split("/", 2);
  const next = wanted in VIEWS ? wanted : "world";
  if (next !== name) {
    view?.leave();
    name = next;
    view = VIEWS[name](rest ? decodeURIComponent(rest) : undefined);
    main.replaceChildren(view.element);
    main.scrollTo?.(0, 0);
    document.title = `${name[0].toUpperCase()}${name.slice(1)} · Astrocyte`;
    for (const link of document.querySelectorAll("nav a")) {
      if (link.dataset.view === name) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
  }
  changed();
}

function updateTop() {
  const source = value("source", null);
  const label = document.getElementById("state");
  const [text, kind] = !state.connected ? [source ? "connection lost" : "connecting", "off"]
    : source?.problem ? ["cannot be read", "off"]
      : !time.isLive() ? [time.isPlaying() ? "playing" : "held", "held"]
        : source?.live ? ["live", "on"]
          : source?.complete ? ["recorded", "on"] : ["reading", "held"];
  setText(label, text);
  label.className = `state ${kind}`;
  setText(document.getElementById("source"), source ? `${source.kind} ${source.name}` : "");
  const notice = document.getElementById("notice");
  const lost = !state.connected && source
    ? `${source.demo ? "The demo has ended, and the server of the page with it" : "The server of the page has ended or cannot be reached"}; what was shown stays. Open it again with: ${source.again}` : "";
  const said = lost || source?.problem || source?.note || "";
  notice.hidden = !said;
  setText(notice, said);
  const { alerts } = foundUntilShown();
  const badge = document.getElementById("badge");
  badge.hidden = alerts === 0;
  setText(badge, number(alerts));
  updateRuns();
}

function updateRuns() {
  const choice = document.getElementById("run");
  const shown = time.runs().filter((each) => each.used > 0);
  document.getElementById("run-label").hidden = shown.length === 0;
  const names = JSON.stringify(shown.map((each) => each.name));
  if (choice.dataset.names !== names) {
    choice.dataset.names = names;
    choice.replaceChildren(...shown.map((each) => h("option", { value: each.name }, each.name || "events of no run")));
  }
  const run = time.run();
  if (run) choice.value = run.name;
}

document.getElementById("run").addEventListener("change", (event) => time.chooseRun(event.target.value));
window.addEventListener("hashchange", route);
document.addEventListener("keydown", timeKeys);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", changed);
listen(updateTop);
listen(updateTime);
listen(() => view?.update());
route();
connect();
