// The instant that all views show: the newest one, or one of the past that was chosen.

import { changed, value } from "./store.js";

const chosen = { run: null, at: null, playing: false, speed: 1 };
let last_ms = 0;

export const speeds = [0.25, 1, 4, 16, 64, 256];

export function runs() {
  return value("runs", []);
}

/** The run that is shown: the chosen one, else the one that was heard of last. */
export function run() {
  const all = runs();
  return all.find((each) => each.name === chosen.run) ?? all.find((each) => each.used > 0) ?? null;
}

export function chooseRun(name) {
  chosen.run = name;
  live();
}

export const isLive = () => chosen.at === null;
export const isPlaying = () => chosen.playing;
export const speed = () => chosen.speed;

/** The instant shown, in microseconds since 1970; null without a run. */
export function at() {
  const shown = run();
  if (!shown || shown.newest === null) return null;
  return chosen.at === null ? shown.newest : known(chosen.at);
}

/**
 * The soonest instant from `us` on of which all figures are known: the oldest one, the last event of a bucket, and those
 * between it and the next bucket. Within the events of a bucket some figures would be of rows that came later.
 */
export function known(us) {
  const shown = run();
  if (us <= shown.oldest) return shown.oldest;
  if (us >= shown.newest) return shown.newest;
  const last = value(`run/${shown.name}/instants`, [])[bucketOf(us)] ?? -1;
  return last < 0 ? us : Math.max(us, shown.start + last);
}

/** Whether an instant is the oldest one of a run whose first bucket holds later events too. */
export function isFirst(us) {
  const shown = run();
  return us === shown.oldest && shown.start + (value(`run/${shown.name}/instants`, [])[0] ?? -1) > us;
}

/** Microseconds of an instant since the first event of the shown run. */
export const since = (us) => us - (run()?.oldest ?? 0);

/** Length of the shown run in microseconds. */
export const length = () => Math.max((run()?.newest ?? 0) - (run()?.oldest ?? 0), 1);

export function moveTo(us) {
  const shown = run();
  if (!shown) return;
  chosen.at = Math.min(Math.max(us, shown.oldest), shown.newest);
  changed();
}

export function stepBy(buckets) {
  const shown = run();
  if (shown) moveTo(at() + buckets * shown.width);
}

export function live() {
  chosen.at = null;
  chosen.playing = false;
  changed();
}

/** Hold the shown instant. */
export function pause() {
  if (chosen.at === null) chosen.at = at();
  chosen.playing = false;
  changed();
}

/** Let time go on from the shown instant, from the beginning if that is the end. */
export function play() {
  const shown = run();
  if (!shown) return;
  if (chosen.at === null || chosen.at >= shown.newest) chosen.at = shown.oldest;
  chosen.playing = true;
  last_ms = performance.now();
  requestAnimationFrame(advance);
  changed();
}

export function setSpeed(factor) {
  chosen.speed = factor;
  changed();
}

function advance(now_ms) {
  const shown = run();
  if (!chosen.playing || !shown) return;
  chosen.at += Math.max(now_ms - last_ms, 0) * 1000 * chosen.speed;
  last_ms = now_ms;
  if (chosen.at >= shown.newest) {
    chosen.at = shown.newest;
    chosen.playing = false;
  }
  changed();
  requestAnimationFrame(advance);
}

/** Number of the bucket of an instant in the shown run. */
export function bucketOf(us) {
  const shown = run();
  return Math.min(Math.max(Math.floor((us - shown.start) / shown.width), 0), shown.used - 1);
}

/** What figures that do not follow a held instant are said to be; nothing while the newest instant is shown. */
export const whenNotHeld = () => (isLive() ? "" : value("source", {}).live ? " now" : " in all");

/** When Kafka had the events of the shown instant, in microseconds; null if it is the newest. */
export function writtenAt() {
  const shown = run();
  if (!shown || isLive()) return null;
  const written = value(`run/${shown.name}/written`, []);
  for (let place = bucketOf(at()); place >= 0; place--) if (written[place]) return written[place];
  return null;
}
