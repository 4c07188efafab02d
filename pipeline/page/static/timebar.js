// The bar below all views: what was found when, and the instant that is shown.

import { h, s, setText } from "./dom.js";
import { elapsed, instant, utc } from "./format.js";
import { value } from "./store.js";
import * as time from "./time.js";

export function timeBar(element) {
  const play = h("button", { type: "button", class: "icon", onclick: () => (time.isPlaying() || time.isLive() ? time.pause() : time.play()) });
  const back = h("button", { type: "button", class: "icon", "aria-label": "Step back", title: "Step back (←)", onclick: () => time.stepBy(-1) }, "‹");
  const on = h("button", { type: "button", class: "icon", "aria-label": "Step forward", title: "Step forward (→)", onclick: () => time.stepBy(1) }, "›");
  const speed = h("select", { "aria-label": "Speed of playing", onchange: (event) => time.setSpeed(Number(event.target.value)) },
    time.speeds.map((each) => h("option", { value: String(each) }, `${each}×`)));
  speed.value = "1";
  const live = h("button", { type: "button", class: "live", onclick: time.live });
  const strip = s("svg", { class: "strip", "aria-hidden": "true", preserveAspectRatio: "none" });
  const slider = h("input", { type: "range", min: "0", max: "1000", step: "any", "aria-label": "Instant shown", oninput: () => {
    const run = time.run();
    if (run) time.moveTo(run.oldest + (slider.valueAsNumber / 1000) * (run.newest - run.oldest));
  } });
  const label = h("output", { class: "instant" });
  element.append(h("div", { class: "buttons" }, back, play, on, speed), h("div", { class: "track" }, strip, slider), label, live);

  function drawStrip(run) {
    const rows = [];
    const of = (place) => ((place + 0.5) / run.used) * 1000;
    const matches = value(`run/${run.name}/found/matches`, []);
    const most = Math.max(1, ...matches);
    rows.push(s("path", { class: "matches", d: matches.map((count, place) => (count ? `M${of(place)} 20V${20 - 14 * Math.sqrt(count / most)}` : "")).join("") }));
    for (const severity of ["info", "warning", "critical"]) {
      const counts = value(`run/${run.name}/found/${severity}`, []);
      rows.push(s("path", { class: `mark ${severity}`, d: counts.map((count, place) => (count ? `M${of(place)} 1V8` : "")).join("") }));
    }
    strip.setAttribute("viewBox", "0 0 1000 20");
    strip.replaceChildren(...rows);
  }

  return function update() {
    const run = time.run();
    element.hidden = !run;
    if (!run) return;
    const isLive = value("source", {}).live;
    const stands = !time.isPlaying() && !time.isLive();
    setText(play, stands ? "▶" : "❚❚");
    play.setAttribute("aria-label", stands ? "Play" : "Pause");
    play.title = stands ? "Play from here (space)" : "Hold this instant (space)";
    setText(live, isLive ? "Live" : "End");
    live.setAttribute("aria-pressed", String(time.isLive()));
    live.title = isLive ? "Follow the newest events (L)" : "Show the end of the run (L)";
    const at = time.at();
    const length = time.length();
    if (document.activeElement !== slider || time.isPlaying() || time.isLive()) slider.value = String(((at - run.oldest) / length) * 1000);
    slider.setAttribute("aria-valuetext", `${instant(time.since(at), length)} after the start`);
    setText(label, `${instant(time.since(at), length)} / ${elapsed(length, length)}`);
    label.title = `${utc(at)} UTC`;
    drawStrip(run);
  };
}

/** Keys that work wherever no field has the focus. */
export function timeKeys(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input:not([type=range]), select, textarea")) return;
  const onButton = event.target.closest("button, a, summary, [role=option]");
  if (event.key === " " && !onButton) {
    event.preventDefault();
    if (time.isPlaying() || time.isLive()) time.pause();
    else time.play();
  } else if ((event.key === "ArrowLeft" || event.key === "ArrowRight") && !event.target.closest("[role=listbox]")) {
    event.preventDefault();
    time.stepBy((event.key === "ArrowLeft" ? -1 : 1) * (event.shiftKey ? 10 : 1));
  } else if (event.key === "l" || event.key === "L") {
    time.live();
  }
}

