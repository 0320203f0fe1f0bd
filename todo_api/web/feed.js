/**
 * The list, kept current by asking with the ETag of what we have: an answer 304 costs the API next to nothing.
 *
 * Not asked while the page is hidden. A failure is shown and repeated later, after Retry-After where there is one.
 */

import { nextPath, request } from "./api.js";

const FIRST = "/todos?limit=50";
const POLL_MS = 2000;
const HURRY_MS = 250;
const BACKOFF_MS = [1000, 2000, 4000, 8000, 15_000];

export class Feed {
  todos = null; // null until the first answer
  hasMore = false;
  staleS = 0; // the API shows an older state, because the servers behind it are away
  error = null;
  retryAtMs = 0;

  #pages = []; // {etag, todos, next}
  #wanted = 1;
  #failures = 0;
  #hurryUntilMs = 0;
  #timer;
  #running = null;

  /** `onChange()` is called when anything above has changed. */
  constructor(onChange) {
    this.onChange = onChange;
    document.addEventListener("visibilitychange", () => this.refresh());
    addEventListener("online", () => this.refresh());
  }

  get isPaused() {
    return document.hidden;
  }

  /** Ask often for a while: a write is on its way. */
  hurry() {
    this.#hurryUntilMs = Date.now() + 5000;
    if (this.error === null) this.#schedule(HURRY_MS);
  }

  /** Load one more page. */
  more() {
    this.#wanted = this.#pages.length + 1;
    return this.refresh();
  }

  /** Ask now, then again and again. Never throws. */
  async refresh() {
    clearTimeout(this.#timer);
    if (this.isPaused) {
      this.onChange();
      return;
    }
    // Two at once could put an older answer over a newer one.
    while (this.#running !== null) await this.#running;
    clearTimeout(this.#timer);
    this.#running = this.#ask();
    await this.#running;
    this.#running = null;
  }

  async #ask() {
    try {
      await this.#load();
      this.error = null;
      this.#failures = 0;
      this.#schedule(Date.now() < this.#hurryUntilMs ? HURRY_MS : POLL_MS);
    } catch (error) {
      const backoffMs = BACKOFF_MS[Math.min(this.#failures, BACKOFF_MS.length - 1)];
      const delayMs = Math.max(backoffMs, (error.retryAfterS ?? 0) * 1000);
      this.#failures += 1;
      this.error = error;
      this.retryAtMs = Date.now() + delayMs;
      this.#schedule(delayMs);
    }
    this.onChange();
  }

  async #load() {
    const [first] = this.#pages;
    const answer = await request("GET", FIRST, { etag: first?.etag });
    this.staleS = Number(answer.headers.get("Age") ?? 0);
    // The ETag names the state of all todos, so the pages after an unchanged first one are unchanged too.
    const pages = answer.status === 304 ? [...this.#pages] : [page(answer)];
    while (pages.length < this.#wanted && pages.at(-1).next !== null) {
      pages.push(page(await request("GET", pages.at(-1).next)));
    }
    this.#pages = pages;
    this.hasMore = pages.at(-1).next !== null;
    // Two pages of two states may overlap.
    this.todos = [...new Map(pages.flatMap(({ todos }) => todos).map((todo) => [todo.id, todo])).values()];
  }

  #schedule(delayMs) {
    clearTimeout(this.#timer);
    if (!this.isPaused) this.#timer = setTimeout(() => this.refresh(), delayMs);
  }
}

function page({ headers, body }) {
  return { etag: headers.get("ETag"), todos: body, next: nextPath(headers) };
}
