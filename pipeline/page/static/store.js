// What the server has said: values by name, as pipeline/page/content/document.py describes them.

const values = new Map();
const listeners = new Set();
let scheduled = false;

export const state = { connected: false, ended: false };

export const value = (name, otherwise) => (values.has(name) ? values.get(name) : otherwise);

export function listen(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** Draw once for everything that changed since the last picture. */
export function changed() {
  if (scheduled) return;
  scheduled = true;
  const draw = () => {
    scheduled = false;
    for (const listener of listeners) listener();
  };
  // A hidden tab draws nothing until it is seen.
  requestAnimationFrame(draw);
}

export function apply(patch) {
  for (const [name, body] of Object.entries(patch.set ?? {})) values.set(name, body);
  for (const [name, { n, i, v }] of Object.entries(patch.at ?? {})) {
    const array = values.get(name) ?? [];
    array.length = n;
    i.forEach((place, number) => { array[place] = v[number]; });
    values.set(name, array);
  }
  for (const [name, { from, items, most }] of Object.entries(patch.add ?? {})) {
    const feed = values.get(name);
    const kept = feed && feed.first + feed.items.length === from ? feed.items.concat(items) : items;
    const over = Math.max(kept.length - most, 0);
    values.set(name, { first: from + items.length - kept.length + over, items: kept.slice(over), version: from + items.length });
  }
  for (const name of patch.del ?? []) values.delete(name);
}

export function connect() {
  const source = new EventSource("/api/stream");
  source.addEventListener("snapshot", (event) => {
    values.clear();
    apply(JSON.parse(event.data));
    state.connected = true;
    changed();
  });
  source.addEventListener("patch", (event) => {
    apply(JSON.parse(event.data));
    changed();
  });
  source.addEventListener("error", () => {
    state.connected = false;
    // A refusal closes the stream for good: ask again, for the server may be full for a moment only.
    if (source.readyState === EventSource.CLOSED) setTimeout(connect, 3000);
    changed();
  });
}

/** `signal` ends the question, which is then answered as ``stopped``. */
export async function ask(path, parameters, signal) {
  const query = new URLSearchParams(Object.entries(parameters).filter(([, each]) => each !== null && each !== undefined));
  try {
    const answer = await fetch(`${path}?${query}`, { signal });
    return await answer.json();
  } catch {
    return signal?.aborted ? { stopped: true } : { error: "the page's server does not answer" };
  }
}

/** A question that changes or costs something; ``key`` is what only a page of this server can know. */
export async function post(path, key, body) {
  try {
    const answer = await fetch(path, {
      method: "POST", headers: { "Content-Type": "application/json", "X-Astrocyte-Page": key }, body: JSON.stringify(body),
    });
    const text = await answer.text();
    return text.startsWith("{") ? { ...JSON.parse(text), status: answer.status } : { error: text.trim() || `status ${answer.status}`, status: answer.status };
  } catch {
    return { error: "the page's server does not answer" };
  }
}
