// The status page: asks /status.json every two seconds and draws what changed since.

const EVERY_MS = 2000;
const KEPT = 60; // answers: two minutes
const HEIGHT = 40;
const WIDTH = 200;

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });

const perSecond = (name) => (now, before) =>
  before && now.time_s > before.time_s ? Math.max(0, now[name] - before[name]) / (now.time_s - before.time_s) : null;

// The share of list requests that were answered from the memory of a process, since the answer before.
const hitRatio = (now, before) => {
  if (!before) return null;
  const asked = now.list_requests_total - before.list_requests_total;
  return asked > 0 ? Math.min(1, (now.page_hits_total - before.page_hits_total) / asked) : null;
};

const FIGURES = [
  { id: "generation", name: "Generation", of: (now) => now.generation, text: (v) => whole.format(v) },
  { id: "requests", name: "Requests a second", of: perSecond("requests_total"), text: (v) => short.format(v) },
  { id: "hits", name: "Lists from memory", of: hitRatio, text: (v) => `${short.format(v * 100)} %` },
  { id: "lag", name: "Commands waiting", of: (now) => now.lag_commands, text: (v) => whole.format(v) },
  { id: "age", name: "Newest applied command", of: (now) => now.applied_age_s, text: (v) => `${short.format(v)} s ago` },
  { id: "delay", name: "From request to table", of: (now) => now.applied_delay_s, text: (v) => `${short.format(v * 1000)} ms` },
];

const kept = new Map(FIGURES.map((figure) => [figure.id, []]));
let before = null;

function makeFigures() {
  const list = document.getElementById("figures");
  const template = document.getElementById("figure");
  for (const figure of FIGURES) {
    const item = template.content.firstElementChild.cloneNode(true);
    item.id = figure.id;
    item.querySelector("h2").textContent = figure.name;
    item.querySelector(".value").textContent = "–";
    list.append(item);
  }
}

function line(values) {
  const known = values.filter((value) => value !== null);
  if (known.length < 2) return "";
  const low = Math.min(...known);
  const span = Math.max(...known) - low || 1;
  const step = WIDTH / (KEPT - 1);
  let pen = "M";
  return values
    .map((value, at) => {
      if (value === null) {
        pen = "M";
        return "";
      }
      const x = WIDTH - (values.length - 1 - at) * step;
      const point = `${pen}${x.toFixed(1)} ${(HEIGHT - 2 - ((value - low) / span) * (HEIGHT - 4)).toFixed(1)}`;
      pen = "L";
      return point;
    })
    .join("");
}

function show(now) {
  for (const figure of FIGURES) {
    const value = figure.of(now, before) ?? null;
    const values = kept.get(figure.id);
    values.push(value);
    if (values.length > KEPT) values.shift();
    const item = document.getElementById(figure.id);
    item.querySelector(".value").textContent = value === null ? "–" : figure.text(value);
    item.querySelector("path").setAttribute("d", line(values));
  }
  const servers = document.getElementById("servers");
  const rows = Object.entries(now.ready.dependencies).flatMap(([name, { state }]) => {
    const term = document.createElement("dt");
    const description = document.createElement("dd");
    term.textContent = name;
    description.textContent = state;
    description.dataset.state = state;
    return [term, description];
  });
  servers.replaceChildren(...rows);
  before = now;
}

function say(state, text) {
  document.getElementById("liveness").dataset.state = state;
  const element = document.getElementById("liveness-text");
  // Said again only when it changes: it is read aloud.
  if (element.textContent !== text) element.textContent = text;
}

async function ask() {
  try {
    const answer = await fetch("/status.json", { cache: "no-store", signal: AbortSignal.timeout(5000) });
    if (!answer.ok) throw new Error(`answered ${answer.status}`);
    const now = await answer.json();
    show(now);
    say(now.ready.ready ? "live" : "trouble", now.ready.ready ? "Ready" : "Not ready");
  } catch {
    say("trouble", "No answer");
  }
}

async function run() {
  for (;;) {
    if (!document.hidden) await ask();
    await new Promise((resolve) => setTimeout(resolve, EVERY_MS));
  }
}

makeFigures();
run();
