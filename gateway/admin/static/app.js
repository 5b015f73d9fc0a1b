// The frame around the views: who is logged in, the list of pages, and which view the URL asks for.

import { h, put } from "./lib/dom.js";
import { help, listen } from "./lib/keys.js";
import { place } from "./lib/router.js";
import { logOut, me, recognise } from "./lib/session.js";
import { failure } from "./parts/states.js";
import { toast } from "./parts/toast.js";
import * as audit from "./pages/audit.js";
import * as client from "./pages/client.js";
import * as clients from "./pages/clients.js";
import * as dead from "./pages/dead.js";
import * as job from "./pages/job.js";
import * as jobs from "./pages/jobs.js";
import * as login from "./pages/login.js";
import * as overview from "./pages/overview.js";
import * as replicas from "./pages/replicas.js";
import * as task from "./pages/task.js";
import * as tasks from "./pages/tasks.js";
import * as tiers from "./pages/tiers.js";

// Each has `title(path)` and `show(place, {path, query, signal, again})`, which puts something into `place`.
const PAGES = {
  overview: { label: "Overview", list: overview },
  clients: { label: "Clients", list: clients, one: client },
  tiers: { label: "Tiers", list: tiers },
  tasks: { label: "Tasks", list: tasks, one: task },
  dead: { label: "Dead letters", list: dead },
  jobs: { label: "Jobs", list: jobs, one: job },
  replicas: { label: "Replicas and Redis", list: replicas },
  audit: { label: "Audit log", list: audit },
};

const main = document.getElementById("main");
const shell = document.getElementById("shell");
const door = document.getElementById("login");
const menu = document.getElementById("menu");
const side = document.getElementById("side");
const liveState = h("span", { class: "livestate" }, "Not live");
let leaving = new AbortController();

function show({ focus = false } = {}) {
  leaving.abort();
  leaving = new AbortController();
  const { path, query } = place();
  const name = path[0] in PAGES ? path[0] : "overview";
  const entry = PAGES[name];
  const view = path.length > 1 && entry.one ? entry.one : entry.list;
  document.title = `${view.title(path)} · Gateway`;
  put(
    document.getElementById("nav"),
    Object.entries(PAGES).map(([key, { label }]) => h("a", { href: `#/${key}`, "aria-current": key === name ? "page" : null }, label)),
  );
  unfold(false);
  const room = put(main, h("div", { class: "view" })).firstElementChild;
  view.show(room, { path, query, signal: leaving.signal, again: () => show() });
  if (focus) {
    window.scrollTo(0, 0);
    (room.querySelector("h1") ?? main).focus({ preventScroll: true });
  }
}

function unfold(open) {
  menu.setAttribute("aria-expanded", String(open));
  side.classList.toggle("open", open);
}

function enter() {
  const { key, role } = me();
  put(
    document.getElementById("who"),
    liveState,
    h("span", {}, key === null ? "No admin key is set" : [h("b", {}, key), ` (${role})`]),
    h(
      "div",
      { class: "row" },
      h("button", { type: "button", class: "small", onclick: help }, "Shortcuts ", h("kbd", {}, "?")),
      key !== null && h("button", { type: "button", class: "small", id: "logout", onclick: leave }, "Log out"),
    ),
  );
  door.hidden = true;
  put(door);
  shell.hidden = false;
  show({ focus: true });
}

async function leave() {
  try {
    await logOut();
  } catch (problem) {
    if (problem.status !== 401) return toast(`Not logged out: ${problem.message}`, { bad: true });
  }
  ask();
}

function ask(note) {
  leaving.abort();
  for (const dialog of document.querySelectorAll("dialog")) dialog.close();
  shell.hidden = true;
  put(main);
  document.title = "Log in · Gateway";
  door.hidden = false;
  login.show(door, note, enter);
}

async function start() {
  try {
    if (await recognise()) enter();
    else ask();
  } catch (problem) {
    door.hidden = false;
    put(door, h("main", { class: "panel" }, h("h1", {}, "Gateway"), failure(problem, start)));
  }
}

document.addEventListener("loggedout", () => door.hidden && ask("The session is over. Log in again to go on where you were."));
document.addEventListener("livestate", ({ detail }) => {
  liveState.className = `livestate ${detail}`;
  liveState.textContent = { live: "Live", waiting: "Reconnecting…", resting: "Resting while hidden" }[detail] ?? "Not live";
});
document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
menu.addEventListener("click", () => unfold(menu.getAttribute("aria-expanded") !== "true"));
window.addEventListener("hashchange", () => shell.hidden || show({ focus: true }));
listen(() => shell.hidden || show());
start();
