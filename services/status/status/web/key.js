// The API key of an operator: typed in once a tab, kept in this tab's session storage, sent as a header only.

const PLACE = "backstock-api-key";

export const savedKey = () => sessionStorage.getItem(PLACE) ?? "";
export const saveKey = (key) => sessionStorage.setItem(PLACE, key);
export const forgetKey = () => sessionStorage.removeItem(PLACE);

// Rejects after ten seconds without an answer.
export function ask(path, options = {}) {
  const headers = { Authorization: `Bearer ${savedKey()}` };
  return fetch(path, { ...options, cache: "no-store", headers, signal: AbortSignal.timeout(10_000) });
}

// A read token for one brand, or null if the key does not open it (any more).
export async function issueToken(brand) {
  const answer = await ask(`api/sync/${encodeURIComponent(brand)}/token`, { method: "POST" }).catch(() => null);
  return answer?.ok ? (await answer.json()).token : null;
}
