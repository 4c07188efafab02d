// Questions about rules. Each has the key of this page, which other sites cannot read.

import { post as send } from "../store.js";

let key = "";

export async function listRules() {
  try {
    const answer = await (await fetch("/api/rules")).json();
    key = answer.key ?? "";
    return answer;
  } catch {
    return { error: "the page's server does not answer" };
  }
}

export function post(path, body) {
  return send(`/api/rules/${path}`, key, body);
}
