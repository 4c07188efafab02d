// How many alerts and multi events there are up to the shown instant.

import { value } from "./store.js";
import * as time from "./time.js";

const SEVERITIES = ["critical", "warning", "info"];

/** All of them, but those of the shown run that came after the shown instant. */
export function foundUntilShown() {
  const { alerts = 0, matches = 0 } = value("counts", {});
  const run = time.run();
  if (time.isLive() || !run) return { alerts, matches };
  const place = time.isFirst(time.at()) ? -1 : time.bucketOf(time.at());
  const later = (name) => value(`run/${run.name}/found/${name}`, []).slice(place + 1).reduce((sum, each) => sum + each, 0);
  return { alerts: alerts - SEVERITIES.reduce((sum, each) => sum + later(each), 0), matches: matches - later("matches") };
}
