// Moving in a tree: by dragging, wheel, two fingers, and keys.

const STEP_PX = 80;
const FACTOR = 1.35;

/** `port` is moved; `moved()` is called after that, `chosen(px, py)` for a click, `over(px, py)` for a hover. */
export function gestures(canvas, port, { moved, chosen, over, beside, clear }) {
  const pointers = new Map();
  let travelled = 0;

  const point = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };

  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, point(event));
    if (pointers.size === 1) travelled = 0;
  });
  canvas.addEventListener("pointermove", (event) => {
    const now = point(event);
    const before = pointers.get(event.pointerId);
    if (!before) {
      over(...now);
      return;
    }
    travelled += Math.hypot(now[0] - before[0], now[1] - before[1]);
    if (pointers.size === 1) port.pan(now[0] - before[0], now[1] - before[1]);
    else pinch(event.pointerId, before, now);
    pointers.set(event.pointerId, now);
    moved();
  });
  for (const kind of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(kind, (event) => {
      const last = pointers.get(event.pointerId);
      pointers.delete(event.pointerId);
      if (kind === "pointerup" && last && travelled < 5 && pointers.size === 0) chosen(...point(event));
    });
  }
  canvas.addEventListener("pointerleave", () => over(-1, -1));
  canvas.addEventListener("dblclick", (event) => {
    const [px, py] = point(event);
    port.zoom(FACTOR ** 4, FACTOR, px, py);
    moved();
  });
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    const [px, py] = point(event);
    const delta = event.deltaY || event.deltaX;
    const factor = FACTOR ** (-Math.max(Math.min(delta, 120), -120) / 80);
    if (event.shiftKey || event.altKey) port.zoom(1, factor, px, py);
    else port.zoom(factor, 1, px, py);
    moved();
  }, { passive: false });

  /** Both fingers stay on what they hold, along each axis on which they are apart. */
  function pinch(id, before, now) {
    const other = [...pointers].find(([each]) => each !== id)[1];
    const grown = [0, 1].map((axis) => {
      const [was, is] = [Math.abs(before[axis] - other[axis]), Math.abs(now[axis] - other[axis])];
      return was > 30 && is > 30 ? is / was : 1;
    });
    port.zoom(grown[1], grown[0], ...other);
  }

  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey) return;
    const middle = [port.width / 2, port.height / 2];
    const moves = {
      ArrowLeft: () => port.pan(STEP_PX, 0), ArrowRight: () => port.pan(-STEP_PX, 0),
      ArrowUp: () => port.pan(0, STEP_PX), ArrowDown: () => port.pan(0, -STEP_PX),
      "+": () => port.zoom(FACTOR, 1, ...middle), "=": () => port.zoom(FACTOR, 1, ...middle), "-": () => port.zoom(1 / FACTOR, 1, ...middle),
      ">": () => port.zoom(1, FACTOR, ...middle), "<": () => port.zoom(1, 1 / FACTOR, ...middle),
      0: port.whole, Home: port.whole, n: () => beside(1), p: () => beside(-1), Escape: clear,
    };
    if (!(event.key in moves)) return;
    event.preventDefault();
    event.stopPropagation();  // the arrow keys move time elsewhere
    moves[event.key]();
    moved();
  });
}
