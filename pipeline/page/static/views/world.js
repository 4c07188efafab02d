// The world: everything that its streams tell, over the time of the run.

import { h } from "../dom.js";
import { counted } from "../format.js";
import { value } from "../store.js";
import * as time from "../time.js";
import { heatChart } from "../charts/heat.js";
import { linesChart, sharesChart } from "../charts/lines.js";
import { pathChart } from "../charts/path.js";
import { basinPanel } from "../scenes/basin.js";
import { mapPanel } from "../scenes/map.js";

const MAKERS = { lines: linesChart, shares: sharesChart, heat: heatChart, path: pathChart };
const SCENES = { map: mapPanel, basin: basinPanel };

export function worldView() {
  const grid = h("div", { class: "charts" });
  const empty = h("div", { class: "empty" });
  const key = h("p", { class: "chart-key" },
    h("span", {}, h("i", { class: "critical" }), "critical"), h("span", {}, h("i", { class: "warning" }), "warning"), h("span", {}, h("i", { class: "info" }), "info"),
    " alerts above each chart", h("span", {}, h("i", { class: "band" }), "planted anomaly"));
  const element = h("section", { class: "world", "aria-label": "World" }, empty, key, grid);
  let shown = "";
  let boxes = [];

  function update() {
    const run = time.run();
    const specs = run ? value(`run/${run.name}/charts`, []) : [];
    empty.hidden = specs.length > 0;
    grid.hidden = specs.length === 0;
    key.hidden = specs.length === 0;
    if (!specs.length) {
      empty.replaceChildren(...emptyText());
      return;
    }
    const scenes = run.scenes ?? [];
    const now = `${run.name} ${scenes} ${specs.map(signature).join("|")}`;
    if (now !== shown) {
      shown = now;
      for (const box of boxes) box.dispose();
      boxes = specs.map((spec, place) => {
        const wide = (place === 0 && spec.forecast !== "") || spec.classes.length > 1 || spec.classes.some((each) => each.names.length > 0);
        return MAKERS[spec.kind](spec, { wide, ...(wide && place === 0 ? { height: 210 } : {}) });
      });
      boxes.splice(1, 0, ...scenes.map((name) => SCENES[name]()));
      grid.replaceChildren(...boxes.map((box) => box.element));
    }
    for (const box of boxes) box.redraw();
  }

  return { element, update, leave: () => boxes.forEach((box) => box.dispose()) };
}

/** What a chart is made of: names inside a field may come later than the chart. */
const signature = (spec) => [spec.title, ...spec.lines.map((each) => each.label), ...spec.classes.flatMap((each) => each.names)].join();

function emptyText() {
  const source = value("source", {});
  if (source.problem) {
    const { read = 0 } = value("counts", {});
    return [h("h2", {}, "It cannot be read"), h("p", {}, `There is no event with a chart in ${read ? `the ${counted(read, "message")} before the damage` : "what could be read"}.`)];
  }
  if (source.demo) return [h("h2", {}, "The world is starting"), h("p", {}, "The first charts appear with its first events.")];
  if (source.live) {
    return [
      h("h2", {}, "No events yet"),
      h("p", {}, "The page draws a world as soon as its first events arrive. Start one in another terminal:"),
      h("pre", {}, source.start),
    ];
  }
  if (source.complete) {
    return [
      h("h2", {}, "No world in here"),
      h("p", {}, "Nothing that was read has charts. Findings and Pipeline show what else there is."),
    ];
  }
  return [h("h2", {}, "Reading"), h("p", {}, "The first charts appear with the first events.")];
}
