/** The todo page: the list as it is, with what is on its way on top. */

import { Feed } from "./feed.js";
import { Row, mistake, reason } from "./row.js";
import { Session } from "./session.js";
import { Writes } from "./writes.js";

const at = (id) => document.getElementById(id);
const list = at("todos");
const rows = new Map(); // by todo id; by the key of its write for one that was created here

const session = new Session(onSession);
const feed = new Feed(render);
const writes = new Writes(session, onWrite);
const actions = {
  update: (todo, fields) => writes.update(todo, fields),
  delete: (todo) => writes.delete(todo),
  retry: (write) => writes.retry(write),
  dismiss: (write) => writes.dismiss(write),
};
const createdHere = new Map(); // todo id -> the key of the write that created it

function render() {
  const items = feed.todos === null ? [] : writes.over(feed.todos);
  const focused = document.activeElement?.closest?.(".todo");
  const shown = new Set();
  let place = list.firstElementChild;
  for (const item of items) {
    const key = keyOf(item);
    shown.add(key);
    if (!rows.has(key)) rows.set(key, new Row(actions));
    const row = rows.get(key);
    row.update(item, session.user);
    // What stays in its place is not touched: moving an element takes the focus from it.
    if (row.element === place) place = place.nextElementSibling;
    else list.insertBefore(row.element, place);
  }
  const neighbour = focused?.nextElementSibling ?? focused?.previousElementSibling;
  for (const [key, row] of rows) {
    if (shown.has(key)) continue;
    row.element.remove();
    rows.delete(key);
  }
  if (focused && !focused.isConnected) focusNear(neighbour);
  showState(items);
}

function keyOf({ todo, writes: onTop }) {
  const creation = onTop.find(({ kind }) => kind === "create");
  if (creation === undefined) return createdHere.get(todo.id) ?? todo.id;
  if (todo.id !== null) createdHere.set(todo.id, creation.key);
  return creation.key;
}

/** The row that had the focus is gone: go on from where it was. */
function focusNear(element) {
  const row = [...rows.values()].find((other) => other.element === element);
  if (row === undefined) at("list-heading").focus();
  else row.focus();
}

function showState(items) {
  const isLoading = feed.todos === null;
  at("loading").hidden = !isLoading;
  list.ariaBusy = String(isLoading);
  at("empty").hidden = isLoading || items.length > 0;
  at("empty-hint").textContent = session.user === null ? "Sign in to add the first." : "Add the first above.";
  at("more").hidden = !feed.hasMore;
  showLiveness();
}

function showLiveness() {
  const { error } = feed;
  let [state, text] = ["live", "Live"];
  if (feed.isPaused) [state, text] = ["paused", "Paused"];
  else if (error !== null) [state, text] = ["trouble", "Not live"];
  else if (feed.todos === null) [state, text] = ["loading", "Loading"];
  else if (feed.staleS > 0) [state, text] = ["trouble", `As of ${feed.staleS} s ago`];
  at("liveness").dataset.state = state;
  at("liveness-text").textContent = text;
  const wasHidden = at("trouble").hidden;
  at("trouble").hidden = error === null;
  if (error === null) {
    if (!wasHidden) say("The list is live again.");
    return;
  }
  const what = error.status === undefined ? "The service cannot be reached." : "The service is busy or not complete.";
  const leftS = Math.max(0, Math.ceil((feed.retryAtMs - Date.now()) / 1000));
  at("trouble-text").textContent = `${what} ${leftS > 0 ? `Trying again in ${leftS} s.` : "Trying again."}`;
  if (wasHidden) say(what);
}

function say(text) {
  at("said").textContent = text;
}

const DONE = { create: "Added", update: "Changed", delete: "Deleted" };

function onWrite(write) {
  const title = write.fields.title ?? write.todo.title;
  if (write.state === "pending") feed.hurry();
  if (write.state === "waiting") say(`The service is away. ${title} will be sent again.`);
  if (write.state === "applied") {
    say(`${DONE[write.kind]}: ${title}`);
    feed.refresh();
  }
  if (write.hasFailed) say(`${title}: ${reason(write)}`);
  render();
}

function onSession(because) {
  const isIn = session.user !== null;
  at("who").hidden = !isIn;
  at("user").textContent = session.user ?? "";
  at("sign-in").hidden = isIn;
  at("add").hidden = !isIn;
  at("sign-in-error").textContent = because;
  if (because !== "") at("token").focus();
  if (isIn) writes.resume();
  render();
}

at("sign-in").addEventListener("submit", async (event) => {
  event.preventDefault();
  at("sign-in-error").textContent = "";
  try {
    await session.signIn(at("token").value);
  } catch (error) {
    at("sign-in-error").textContent = error.message;
    at("token").focus();
    return;
  }
  at("token").value = "";
  at("new-title").focus();
  say(`Signed in as ${session.user}`);
});

at("sign-out").addEventListener("click", () => {
  session.signOut();
  at("sign-in-heading").focus();
});

at("add").addEventListener("submit", (event) => {
  event.preventDefault();
  const title = at("new-title");
  const description = at("new-description");
  at("new-error").textContent = mistake(title.value.trim(), description.value);
  title.focus();
  if (at("new-error").textContent !== "") return;
  writes.create({ title: title.value.trim(), description: description.value });
  title.value = description.value = "";
  at("new-more").open = false;
});

at("more").addEventListener("click", async () => {
  const last = list.lastElementChild;
  await feed.more();
  focusNear(last?.nextElementSibling);
});

at("try-now").addEventListener("click", () => feed.refresh());

setInterval(() => {
  if (feed.error !== null) showLiveness();
}, 1000);
setInterval(() => {
  for (const row of rows.values()) row.tell();
}, 30_000);

// A write that is still on its way is lost with the page.
addEventListener("beforeunload", (event) => {
  if (writes.areUnsent) event.preventDefault();
});

onSession("");
feed.refresh();
