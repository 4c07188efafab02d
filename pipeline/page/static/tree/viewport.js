// The part of a tree that is shown: times, and rows as shares of all of them, so that it stays while the tree grows.

export const MARGIN = { left: 12, right: 14, top: 10, bottom: 24 };
const LEAST_SHARE = 1e-7;

export function viewport() {
  // What was not zoomed follows the tree as it grows.
  let times = null;
  let rows = null;
  const port = { width: 0, height: 0, rows: 1, from: 0, to: 1 };

  const view = () => ({ ...(times ?? { from: port.from, to: port.to }), ...(rows ?? { top: 0, bottom: 1 }) });

  function setTimes(next) {
    const span = Math.max(port.to - port.from, 1);
    const least_us = Math.max(span * 1e-6, 10);
    const width = Math.min(Math.max(next.to - next.from, least_us), span * 1.25);
    const middle = (next.from + next.to) / 2;
    const from = Math.min(Math.max(middle - width / 2, port.from - width / 2), port.to - width / 2);
    times = { from, to: from + width };
  }

  function setRows(next) {
    const height = Math.min(Math.max(next.bottom - next.top, Math.max(2 / port.rows, LEAST_SHARE)), 1);
    const centre = Math.min(Math.max((next.top + next.bottom) / 2, height / 2), 1 - height / 2);
    rows = height < 1 ? { top: centre - height / 2, bottom: centre + height / 2 } : null;
  }

  const inner = () => ({ width: Math.max(port.width - MARGIN.left - MARGIN.right, 1), height: Math.max(port.height - MARGIN.top - MARGIN.bottom, 1) });

  return Object.assign(port, {
    view,
    inner,
    whole: () => { times = rows = null; },
    showRows: setRows,
    x: (us) => MARGIN.left + ((us - view().from) / (view().to - view().from)) * inner().width,
    y: (row) => MARGIN.top + ((row / port.rows - view().top) / (view().bottom - view().top)) * inner().height,
    timeAt: (px) => view().from + ((px - MARGIN.left) / inner().width) * (view().to - view().from),
    shareAt: (py) => view().top + ((py - MARGIN.top) / inner().height) * (view().bottom - view().top),
    rowPx: () => inner().height / ((view().bottom - view().top) * port.rows),
    pan(dx, dy) {
      const { from, to, top, bottom } = view();
      const time = (dx / inner().width) * (to - from);
      const share = (dy / inner().height) * (bottom - top);
      if (dx && times) setTimes({ from: from - time, to: to - time });
      if (dy && rows) setRows({ top: top - share, bottom: bottom - share });
    },
    /** Zoom the rows and the times by factors (above 1: nearer) around a point. */
    zoom(ofRows, ofTimes, px, py) {
      const { from, to, top, bottom } = view();
      const [at, share] = [port.timeAt(px), port.shareAt(py)];
      if (ofTimes !== 1) setTimes({ from: at - (at - from) / ofTimes, to: at + (to - at) / ofTimes });
      if (ofRows !== 1) setRows({ top: share - (share - top) / ofRows, bottom: share + (bottom - share) / ofRows });
    },
  });
}
