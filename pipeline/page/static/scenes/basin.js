// Kernels in their basin: dots where they are, and the way by which they came there.

import { number } from "../format.js";
import { scenePanel } from "./scene.js";

export const basinPanel = () => scenePanel({
  kind: "basin", title: "Basin", unit: "first two principal components", scale: "scale", height: 330, draw, say,
  note: "eight coordinates, seen in the plane in which they differ most; the colour of a kernel is its phi, from 0 to 1",
});

function say(answer) {
  if (!answer.id.length) return null;
  const [x, y] = answer.explained.map((each) => `${Math.round(each * 100)} %`);
  return [["living kernels", number(answer.living)], ["of the variance", `${x} across, ${y} upwards`]];
}

function draw(context, answer, width, height, colours) {
  const [left, low, right, high] = answer.bounds;
  const unit = Math.min((width - 20) / Math.max(right - left, 1e-9), (height - 20) / Math.max(high - low, 1e-9));
  const x = (each) => width / 2 + (each - (left + right) / 2) * unit;
  const y = (each) => height / 2 - (each - (low + high) / 2) * unit;
  const colour = (phi) => (phi === null ? colours.of("faint") : colours.mixed(phi));
  context.lineWidth = 1;
  context.globalAlpha = 0.45;
  answer.trails.forEach((trail, place) => {
    context.strokeStyle = colour(answer.phi[place]);
    context.beginPath();
    for (let each = 0; each < trail.length; each += 2) context.lineTo(x(trail[each]), y(trail[each + 1]));
    context.stroke();
  });
  context.globalAlpha = 1;
  for (let place = answer.id.length - 1; place >= 0; place--) {
    context.fillStyle = colour(answer.phi[place]);
    context.beginPath();
    context.arc(x(answer.x[place]), y(answer.y[place]), 2.6, 0, 2 * Math.PI);
    context.fill();
  }
}
