/** One row of the list. It is changed in place, never built anew, so that focus and half-typed text stay. */

const TITLE_MAX = 200;
const DESCRIPTION_MAX = 10_000;

const rowTemplate = document.getElementById("row");
const failureTemplate = document.getElementById("failure");
const ago = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
const exact = new Intl.DateTimeFormat(undefined, { dateStyle: "long", timeStyle: "short" });

const STATES = { sending: "Sending", waiting: "Waiting to send", pending: "Saving" };
const FAILURES = {
  rejected: { create: "Not added.", update: "Not changed.", delete: "Not deleted." },
  unsent: { create: "Not sent.", update: "Not sent.", delete: "Not sent." },
};

/** Return what is wrong with a title or description, or "". The API's own rules; it checks them again. */
export function mistake(title, description) {
  if (title === "") return "A todo needs a title.";
  if ([...title].length > TITLE_MAX) return `A title has at most ${TITLE_MAX} characters.`;
  if ([...description].length > DESCRIPTION_MAX) return "A description has at most 10,000 characters.";
  return "";
}

let rows = 0;

export class Row {
  #parts = {};
  #item = null;
  #failures = new Map();

  /** `actions` has update(todo, fields), delete(todo), retry(write), dismiss(write). */
  constructor(actions) {
    this.actions = actions;
    this.element = rowTemplate.content.firstElementChild.cloneNode(true);
    for (const name of ["view", "tick", "title", "description", "state", "owner", "actions", "edit", "delete"]) {
      this.#parts[name] = this.element.querySelector(`.${name}`);
    }
    for (const name of ["editor", "confirm", "failures"]) this.#parts[name] = this.element.querySelector(`.${name}`);
    this.#parts.time = this.element.querySelector("time");
    rows += 1;
    this.#parts.tick.id = `todo-${rows}`;
    this.#parts.title.htmlFor = this.#parts.tick.id;
    this.#listen();
  }

  /** Show `{todo, writes}` to `user`, who may change what is theirs. */
  update(item, user) {
    this.#item = item;
    const { todo, writes } = item;
    const parts = this.#parts;
    const isMine = todo.user_id === user;
    const latest = writes.findLast((write) => !write.hasFailed && write.state !== "applied");
    const isGoing = latest?.kind === "delete";
    setText(parts.title, todo.title);
    setText(parts.description, todo.description);
    setText(parts.owner, isMine ? "" : `by ${todo.user_id}`);
    setText(parts.state, latest === undefined ? "" : isGoing ? "Deleting" : STATES[latest.state]);
    this.tell();
    parts.tick.checked = todo.completed;
    // What is not in the log yet has no id to change it by.
    parts.tick.disabled = !isMine || todo.id === null;
    parts.actions.hidden = !isMine || todo.id === null || isGoing;
    parts.edit.ariaLabel = `Edit: ${todo.title}`;
    parts.delete.ariaLabel = `Delete: ${todo.title}`;
    parts.confirm.ariaLabel = `Delete: ${todo.title}`;
    this.element.classList.toggle("is-going", isGoing);
    if (!isMine) this.#show("view");
    this.#showFailures(writes.filter((write) => write.hasFailed));
  }

  /** Say how long ago it was made, as of now. */
  tell() {
    const created = new Date(this.#item.todo.created_at);
    const { time } = this.#parts;
    time.dateTime = created.toISOString();
    time.title = exact.format(created);
    setText(time, since(created));
  }

  focus() {
    const { tick, edit } = this.#parts;
    (tick.disabled ? edit : tick).focus();
  }

  #listen() {
    const { tick, edit, editor, confirm } = this.#parts;
    tick.addEventListener("change", () => this.actions.update(this.#item.todo, { completed: tick.checked }));

    const title = editor.querySelector(".new-title");
    const description = editor.querySelector(".new-description");
    const error = editor.querySelector(".error");
    edit.addEventListener("click", () => {
      title.value = this.#item.todo.title;
      description.value = this.#item.todo.description;
      error.textContent = "";
      this.#show("editor");
      title.focus();
    });
    const leave = () => {
      this.#show("view");
      edit.focus();
    };
    editor.querySelector(".cancel").addEventListener("click", leave);
    editor.addEventListener("keydown", (event) => event.key === "Escape" && leave());
    editor.addEventListener("submit", (event) => {
      event.preventDefault();
      error.textContent = mistake(title.value.trim(), description.value);
      if (error.textContent !== "") {
        title.focus();
        return;
      }
      const fields = {};
      const { todo } = this.#item;
      if (title.value.trim() !== todo.title) fields.title = title.value.trim();
      if (description.value !== todo.description) fields.description = description.value;
      leave();
      if (Object.keys(fields).length > 0) this.actions.update(todo, fields);
    });

    this.#parts.delete.addEventListener("click", () => {
      this.#show("confirm");
      confirm.querySelector(".keep").focus();
    });
    const keep = () => {
      this.#show("view");
      this.#parts.delete.focus();
    };
    confirm.querySelector(".keep").addEventListener("click", keep);
    confirm.addEventListener("keydown", (event) => event.key === "Escape" && keep());
    confirm.querySelector(".really").addEventListener("click", () => {
      this.#show("view");
      // The focus stays in the row, so that it can go on to the next when the row goes.
      this.focus();
      this.actions.delete(this.#item.todo);
    });
  }

  #show(what) {
    const { view, editor, confirm } = this.#parts;
    view.hidden = what === "editor";
    editor.hidden = what !== "editor";
    confirm.hidden = what !== "confirm";
  }

  #showFailures(writes) {
    for (const [write, element] of this.#failures) {
      if (writes.includes(write)) continue;
      element.remove();
      this.#failures.delete(write);
    }
    for (const write of writes) {
      if (this.#failures.has(write)) continue;
      const element = failureTemplate.content.firstElementChild.cloneNode(true);
      element.querySelector("b").textContent = FAILURES[write.state][write.kind];
      element.querySelector("span").textContent = reason(write);
      const again = element.querySelector(".again");
      again.hidden = write.state === "rejected";
      again.addEventListener("click", () => this.actions.retry(write));
      element.querySelector(".dismiss").addEventListener("click", () => this.actions.dismiss(write));
      this.#failures.set(write, element);
      this.#parts.failures.append(element);
    }
  }
}

/** Return why a write failed, as a sentence. */
export function reason(write) {
  const { message } = write.problem;
  return `${message[0].toUpperCase()}${message.slice(1)}.`;
}

function since(date) {
  const seconds = (date - Date.now()) / 1000;
  if (seconds > -60) return "just now";
  if (seconds > -3600) return ago.format(Math.round(seconds / 60), "minute");
  if (seconds > -86_400) return ago.format(Math.round(seconds / 3600), "hour");
  if (seconds > -30 * 86_400) return ago.format(Math.round(seconds / 86_400), "day");
  return new Intl.DateTimeFormat(undefined, { dateStyle: "medium" }).format(date);
}

function setText(element, text) {
  // Left alone when nothing changed: a reader would announce it, a selection would be lost.
  if (element.textContent !== text) element.textContent = text;
}
