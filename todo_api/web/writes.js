/**
 * Writes on their way: sent (again, with the same key, while the service is away), then followed until their operation
 * says applied or rejected.
 *
 * A write is shown on top of the list until the list shows it.
 */

import { Refused, request, retryAfterS, wait } from "./api.js";

const ATTEMPTS = 6;
const BACKOFF_MS = [500, 1000, 2000, 4000, 8000];
const FIRST_LOOK_MS = 150;
const NEXT_LOOK_MS = 1000;
// How long an applied write may lack in the list before we believe the list.
const SHOWN_WITHIN_MS = 5000;

const CALLS = {
  create: { method: "POST", path: () => "/todos" },
  update: { method: "PATCH", path: ({ todo }) => `/todos/${todo.id}` },
  delete: { method: "DELETE", path: ({ todo }) => `/todos/${todo.id}` },
};

/**
 * `state` is one of: sending, waiting (to send it again), pending (accepted), applied, rejected (accepted, changed
 * nothing), unsent (not accepted; or not known whether). `problem` says why, for the last two.
 * `todo` is the todo as it was shown, `fields` what is to change.
 */
class Write {
  state = "sending";
  problem = null;
  operation = null;
  appliedAtMs = 0;

  constructor(kind, todo, fields) {
    this.key = randomKey();
    this.kind = kind;
    this.todo = todo;
    this.fields = fields;
  }

  get hasFailed() {
    return this.state === "rejected" || this.state === "unsent";
  }
}

export class Writes {
  #writes = [];

  /** `onChange(write)` is called after each step of a write. */
  constructor(session, onChange) {
    this.session = session;
    this.onChange = onChange;
  }

  create(fields) {
    const now = new Date().toISOString();
    const todo = { id: null, title: "", description: "", completed: false, created_at: now, updated_at: now };
    return this.#begin(new Write("create", { ...todo, user_id: this.session.user }, fields));
  }

  update(todo, fields) {
    return this.#begin(new Write("update", todo, fields));
  }

  delete(todo) {
    return this.#begin(new Write("delete", todo, {}));
  }

  /** Send a write again that could not be sent. It has the same key, so it takes effect once. */
  retry(write) {
    this.#send(write);
  }

  dismiss(write) {
    this.#writes = this.#writes.filter((other) => other !== write);
    this.onChange(write);
  }

  /** After a new sign-in: look again after those whose fate we could not ask for. */
  resume() {
    for (const write of this.#writes) if (write.state === "pending") this.#follow(write);
  }

  /** Something that was typed here is in no log yet. */
  get areUnsent() {
    return this.#writes.some(({ state }) => state === "sending" || state === "waiting" || state === "unsent");
  }

  /** Return the todos as they will be: `[{todo, writes}]`, the newest first. */
  over(todos) {
    const listed = new Map(todos.map((todo) => [todo.id, todo]));
    this.#writes = this.#writes.filter((write) => !isShown(write, listed));
    const items = new Map(todos.map((todo) => [todo.id, { todo, writes: [] }]));
    const created = [];
    for (const write of this.#writes) {
      let item = items.get(write.todo.id);
      if (item === undefined) {
        if (write.kind !== "create" && !write.hasFailed) continue;
        item = { todo: write.todo, writes: [] };
        if (write.todo.id !== null) items.set(write.todo.id, item);
        created.unshift(item);
      }
      item.writes.push(write);
      if (write.kind !== "delete" && (!write.hasFailed || write.kind === "create")) {
        item.todo = { ...item.todo, ...write.fields };
      }
    }
    const isDeleted = ({ writes }) => writes.some(({ kind, state }) => kind === "delete" && state === "applied");
    const rest = [...items.values()].filter((item) => !created.includes(item));
    return [...created, ...rest].filter((item) => !isDeleted(item));
  }

  #begin(write) {
    this.#writes.push(write);
    this.#send(write);
    return write;
  }

  #step(write, changes) {
    Object.assign(write, changes);
    this.onChange(write);
  }

  async #send(write) {
    const { method, path } = CALLS[write.kind];
    const contents = write.kind === "delete" ? undefined : write.fields;
    for (let attempt = 1; ; attempt += 1) {
      this.#step(write, { state: "sending", problem: null });
      try {
        const answer = await request(method, path(write), { token: this.session.token, contents, key: write.key });
        // Known as this from now on: what follows in the list is the same todo.
        write.todo = { ...write.todo, id: answer.body.id };
        this.#step(write, { state: "pending", operation: answer.headers.get("Operation-Location") });
        break;
      } catch (error) {
        if (!error.isTemporary || attempt === ATTEMPTS) {
          this.#step(write, { state: "unsent", problem: error });
          if (error.status === 401) this.session.expire();
          return;
        }
        this.#step(write, { state: "waiting", problem: error });
        await wait(Math.max((error.retryAfterS ?? 0) * 1000, BACKOFF_MS[attempt - 1]));
      }
    }
    await this.#follow(write);
  }

  async #follow(write) {
    let delayMs = FIRST_LOOK_MS;
    while (write.state === "pending") {
      await wait(delayMs);
      try {
        const { body, headers } = await request("GET", write.operation, { token: this.session.token });
        if (body.status === "applied") {
          this.#step(write, { state: "applied", appliedAtMs: Date.now() });
        } else if (body.status === "rejected") {
          const problem = new Refused(body.problem.status, body.problem, null);
          this.#step(write, { state: "rejected", problem });
        }
        delayMs = (retryAfterS(headers) ?? 0) * 1000 || NEXT_LOOK_MS;
      } catch (error) {
        if (error.status === 401) {
          this.session.expire();
          return; // `resume` goes on.
        }
        if (!error.isTemporary) {
          this.#step(write, { state: "unsent", problem: error });
          return;
        }
        delayMs = Math.max((error.retryAfterS ?? 0) * 1000, NEXT_LOOK_MS);
      }
    }
  }
}

function isShown(write, listed) {
  if (write.state !== "applied") return false;
  if (Date.now() - write.appliedAtMs > SHOWN_WITHIN_MS) return true;
  const todo = listed.get(write.todo.id);
  if (write.kind === "delete") return todo === undefined;
  return todo !== undefined && Object.entries(write.fields).every(([name, value]) => todo[name] === value);
}

function randomKey() {
  // Not crypto.randomUUID: browsers have it on HTTPS and localhost only.
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
