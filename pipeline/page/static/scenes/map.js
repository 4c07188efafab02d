// The map of the ecology: resources as colours of squares, sampled agents as dots on them.

import { number } from "../format.js";
import { scenePanel } from "./scene.js";

export const mapPanel = () => scenePanel({
  kind: "map", title: "Map", unit: "resources of a tile", scale: "heat", height: 330, draw, say,
  note: "from the samples of tiles and agents: a square has the newest mean of its tiles, a dot the share of the agents that are there",
});

function say(answer) {
  if (!answer.columns) return null;
  const known = answer.resources.filter((each) => each !== null);
  const mean = known.reduce((sum, each) => sum + each, 0) / Math.max(known.length, 1);
  return [["mean", number(mean)], ["scale up to", number(answer.most)], ["a square is", `${answer.tiles} × ${answer.tiles} tiles`]];
}

function draw(context, answer, width, height, colours) {
  const { columns, rows } = answer;
  const side = Math.min(width / columns, (height - 4) / rows);
  const left = (width - side * columns) / 2;
  const most = Math.max(...answer.agents, 1e-9);
  for (let place = 0; place < columns * rows; place++) {
    const [x, y] = [left + (place % columns) * side, Math.floor(place / columns) * side];
    const amount = answer.resources[place];
    if (amount !== null) {
      context.fillStyle = colours.mixed(amount / Math.max(answer.most, 1e-9));
      context.fillRect(x, y, side - 0.6, side - 0.6);
    } else {
      context.strokeStyle = colours.of("grid");
      context.strokeRect(x + 0.5, y + 0.5, side - 1.6, side - 1.6);
    }
    const agents = answer.agents[place];
    if (agents > 0) {
      context.fillStyle = colours.of("orange");
      context.strokeStyle = colours.of("panel");
      context.beginPath();
      context.arc(x + side / 2, y + side / 2, Math.max(1.6, (side / 2.4) * Math.sqrt(agents / most)), 0, 2 * Math.PI);
      context.fill();
      context.stroke();
    }
  }
}
