// The part of a tree that is shown: times, and rows as shares of all of them, so that it stays while the tree grows.

export const MARGIN = { left: 12, right: 14, top: 10, bottom: 24 };
const LEAST_SHARE = 1e-7;

export function viewport() {
  let zoomed = null;
  const port = { width: 0, height: 0, rows: 1, from: 0, to: 1 };

  const view = () => zoomed ?? { from: port.from, to: port.to, top: 0, bottom: 1 };

  function set(next) {
    const span = Math.max(port.to - port.from, 1);
    const least_us = Math.max(span * 1e-6, 10);
    const width = Math.min(Math.max(next.to - next.from, least_us), span * 1.25);
    const middle = (next.from + next.to) / 2;
    const height = Math.min(Math.max(next.bottom - next.top, Math.max(2 / port.rows, LEAST_SHARE)), 1);
    const centre = Math.min(Math.max((next.top + next.bottom) / 2, height / 2), 1 - height / 2);
    const from = Math.min(Math.max(middle - width / 2, port.from - width / 2), port.to - width / 2);
    zoomed = { from, to: from + width, top: centre - height / 2, bottom: centre + height / 2 };
  }

  const inner = () => ({ width: Math.max(port.width - MARGIN.left - MARGIN.right, 1), height: Math.max(port.height - MARGIN.top - MARGIN.bottom, 1) });

  return Object.assign(port, {
    view,
    inner,
    isWhole: () => zoomed === null,
    whole: () => { zoomed = null; },
    show: (next) => set({ ...view(), ...next }),
    x: (us) => MARGIN.left + ((us - view().from) / (view().to - view().from)) * inner().width,
    y: (row) => MARGIN.top + ((row / port.rows - view().top) / (view().bottom - view().top)) * inner().height,
    timeAt: (px) => view().from + ((px - MARGIN.left) / inner().width) * (view().to - view().from),
    shareAt: (py) => view().top + ((py - MARGIN.top) / inner().height) * (view().bottom - view().top),
    rowPx: () => inner().height / ((view().bottom - view().top) * port.rows),
    pan(dx, dy) {
      const { from, to, top, bottom } = view();
      const time = (dx / inner().width) * (to - from);
      const share = (dy / inner().height) * (bottom - top);
      set({ from: from - time, to: to - time, top: top - share, bottom: bottom - share });
    },
    /** Zoom the rows and the times by factors (above 1: nearer) around a point. */
    zoom(rows, times, px, py) {
      const { from, to, top, bottom } = view();
      const [at, share] = [port.timeAt(px), port.shareAt(py)];
      set({
        from: at - (at - from) / times, to: at + (to - at) / times,
        top: share - (share - top) / rows, bottom: share + (bottom - share) / rows,
      });
    },
  });
}
