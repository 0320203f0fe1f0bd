/** The API over fetch: JSON in, JSON out, and every failure is one of two errors. */

const TIMEOUT_MS = 10_000;

/** The API said no. `message` is for people; `retryAfterS` is null when it did not say. */
export class Refused extends Error {
  constructor(status, problem, retryAfterS) {
    const details = (problem.errors ?? []).map(({ pointer, detail }) => `${pointer.slice(1)} ${detail}`.trim());
    super(details.length ? details.join("; ") : (problem.detail ?? problem.title ?? `The service answered ${status}`));
    this.status = status;
    this.title = problem.title ?? "";
    this.retryAfterS = retryAfterS;
  }

  /** The same request may succeed later. */
  get isTemporary() {
    return this.status === 429 || this.status >= 500;
  }
}

/** No answer came: the network, the service or its proxy is away. Whether a write took effect is unknown. */
export class Unreachable extends Error {
  retryAfterS = null;
  isTemporary = true;

  constructor() {
    super("The service cannot be reached");
  }
}

/**
 * Send one request and return `{status, headers, body}`; a 304 has no body.
 * `contents` is sent as JSON, `etag` as If-None-Match, `key` as Idempotency-Key. Throws Refused or Unreachable.
 */
export async function request(method, path, { token, contents, etag, key } = {}) {
  const headers = { Accept: "application/json" };
  if (token) headers.Authorization = `Bearer ${token}`;
  if (etag) headers["If-None-Match"] = etag;
  if (key) headers["Idempotency-Key"] = key;
  let body;
  if (contents !== undefined) {
    headers["Content-Type"] = "application/json";
    body = JSON.stringify(contents);
  }
  let response;
  let text;
  try {
    const signal = AbortSignal.timeout(TIMEOUT_MS);
    // The ETags are ours to keep: with the browser's cache in between, a 304 would look like a 200.
    response = await fetch(path, { method, headers, body, signal, cache: "no-store", redirect: "error" });
    text = await response.text();
  } catch {
    throw new Unreachable();
  }
  if (response.status === 304) return { status: 304, headers: response.headers, body: null };
  const parsed = parse(text);
  if (!response.ok) throw new Refused(response.status, parsed ?? {}, retryAfterS(response.headers));
  if (parsed === undefined) throw new Unreachable(); // Something in between answered, a portal say.
  return { status: response.status, headers: response.headers, body: parsed };
}

/** Return the seconds in Retry-After (RFC 9110 allows a date too), or null. */
export function retryAfterS(headers) {
  const value = headers.get("Retry-After");
  if (value === null) return null;
  const seconds = /^\d+$/.test(value) ? Number(value) : (Date.parse(value) - Date.now()) / 1000;
  return Number.isFinite(seconds) ? Math.max(0, seconds) : null;
}

/** Return the path in `Link: <path>; rel="next"`, or null. */
export function nextPath(headers) {
  return /<([^>]*)>\s*;\s*rel="?next"?/.exec(headers.get("Link") ?? "")?.[1] ?? null;
}

export function wait(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
