// Scales and the ticks of their axes.

/** Round values between two bounds, about as many as asked for. */
export function ticks(low, high, number) {
  if (!(high > low)) return [low];
  const rough = (high - low) / Math.max(number, 1);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((each) => each * power).find((each) => each >= rough);
  const found = [];
  for (let tick = Math.ceil(low / step) * step; tick <= high + step * 1e-9; tick += step) found.push(Math.abs(tick) < step * 1e-9 ? 0 : tick);
  return found;
}

/** Bounds of a value axis: from 0 where the values are near it, with some room above. */
export function bounds(arrays) {
  let low = Infinity;
  let high = -Infinity;
  for (const array of arrays) {
    for (const each of array) {
      if (each === null || each === undefined) continue;
      if (each < low) low = each;
      if (each > high) high = each;
    }
  }
  if (low > high) return [0, 1];
  if (low >= 0 && low < 0.6 * high) low = 0;
  if (high === low) return low === 0 ? [0, 1] : [low - Math.abs(low) * 0.1, high + Math.abs(high) * 0.1];
  const room = (high - low) * 0.06;
  return [low === 0 ? 0 : low - room, high + room];
}

/** Path through the points that have a value; gaps as short as is usual are crossed, longer ones are left open. */
export function path(values, x, y, first, end) {
  let text = "";
  let last = -Infinity;
  let seen = 0;
  for (let place = first; place < end; place++) if (values[place] !== null && values[place] !== undefined) seen++;
  const gap = Math.max(4, (3 * (end - first)) / Math.max(seen, 1));
  for (let place = first; place < end; place++) {
    const each = values[place];
    if (each === null || each === undefined) continue;
    text += `${place - last > gap ? "M" : "L"}${x(place).toFixed(1)} ${y(each).toFixed(1)}`;
    last = place;
  }
  return text;
}

/** The place of the newest value at or before one; -1 where there is none. */
export function placeAt(values, place) {
  for (let each = place; each >= 0; each--) {
    if (values[each] !== null && values[each] !== undefined) return each;
  }
  return -1;
}

/** Newest value at or before a place. */
export const valueAt = (values, place) => values[placeAt(values, place)] ?? null;
