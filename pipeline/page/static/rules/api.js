// Questions about rules. Each has the key of this page, which other sites cannot read.

import { ask, post as send } from "../store.js";

let key = "";

export async function listRules() {
  const answer = await ask("/api/rules", {});
  key = answer.key ?? key;
  return answer;
}

export function post(path, body) {
  return send(`/api/rules/${path}`, key, body);
}
