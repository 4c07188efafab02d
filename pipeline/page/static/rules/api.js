// Questions about rules. Each has the key of this page, which other sites cannot read.

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

export async function post(path, body) {
  try {
    const answer = await fetch(`/api/rules/${path}`, {
      method: "POST", headers: { "Content-Type": "application/json", "X-Astrocyte-Page": key }, body: JSON.stringify(body),
    });
    const text = await answer.text();
    return text.startsWith("{") ? { ...JSON.parse(text), status: answer.status } : { error: text.trim() || `status ${answer.status}`, status: answer.status };
  } catch {
    return { error: "the page's server does not answer" };
  }
}
