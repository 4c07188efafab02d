// Numbers with as many digits as can be read, and times.

const grouped = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

export function number(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  const size = Math.abs(value);
  if (size >= 1e7) return short(value);
  if (size >= 100 || Number.isInteger(value)) return grouped.format(value);
  if (size >= 10) return value.toFixed(1);
  if (size >= 1) return value.toFixed(2);
  if (size >= 0.001 || size === 0) return value.toFixed(3);
  return value.toExponential(1);
}

/** A number with its noun: 1 alert, 2 alerts. */
export const counted = (count, one, many = `${one}s`) => `${number(count)} ${count === 1 ? one : many}`;

export function short(value) {
  const size = Math.abs(value);
  for (const [bound, unit] of [[1e9, "G"], [1e6, "M"], [1e4, "k"]]) {
    if (size >= bound) return `${(value / (unit === "k" ? 1e3 : bound)).toFixed(size >= 100 * bound ? 0 : 1).replace(/\.0$/, "")}${unit}`;
  }
  return size >= 1000 ? grouped.format(value) : String(Number(value.toPrecision(3)));
}

export function bytes(value) {
  for (const [bound, unit] of [[1 << 30, "GiB"], [1 << 20, "MiB"], [1 << 10, "KiB"]]) {
    if (value >= bound) return `${(value / bound).toFixed(1)} ${unit}`;
  }
  return `${grouped.format(value)} B`;
}

/** Seconds as 12.3 s, 4 min 05 s, 3 h 20 min, 2 d 4 h. */
export function span(seconds) {
  const size = Math.abs(seconds);
  const sign = seconds < 0 ? "−" : "";
  const two = (value) => String(Math.floor(value)).padStart(2, "0");
  if (size < 1) return `${sign}${Math.round(size * 1000)} ms`;
  if (size < 60) return `${sign}${size.toFixed(1)} s`;
  if (size < 3600) return `${sign}${Math.floor(size / 60)} min ${two(size % 60)} s`;
  if (size < 86400) return `${sign}${Math.floor(size / 3600)} h ${two((size % 3600) / 60)} min`;
  return `${sign}${Math.floor(size / 86400)} d ${Math.floor((size % 86400) / 3600)} h`;
}

/** Microseconds since 1970 as UTC; some events have times that no calendar has. */
export function utc(us) {
  const date = new Date(us / 1000);
  return Number.isNaN(date.getTime()) ? `${us} µs` : date.toISOString().replace("T", " ").replace("Z", "");
}

export const clock = (us) => utc(us).slice(11, 19);

/** Time since the run began, with as many digits as its length asks for. */
export function elapsed(us, length_us) {
  const seconds = us / 1e6;
  if (length_us < 120e6 && Number.isInteger(seconds)) return `${seconds} s`;
  if (length_us < 10e6) return `${seconds.toFixed(2)} s`;
  if (length_us < 120e6) return `${seconds.toFixed(1)} s`;
  const two = (value) => String(Math.floor(value)).padStart(2, "0");
  const hours = Math.floor(seconds / 3600);
  const rest = `${two((seconds % 3600) / 60)}:${two(seconds % 60)}`;
  return hours ? `${hours}:${rest}` : rest;
}

/** `elapsed` of one instant, to the millisecond in runs of less than an hour. */
export function instant(us, length_us) {
  if (length_us >= 3600e6) return elapsed(us, length_us);
  const whole = Math.floor(us / 1e6);
  const rest = String(Math.floor(us / 1e3) - whole * 1e3).padStart(3, "0");
  return length_us < 120e6 ? `${whole}.${rest} s` : `${elapsed(whole * 1e6, length_us)}.${rest}`;
}
