// Tasks of all clients: filters, a page at a time, and what is done to all that match, counted first.

import { call } from "../lib/api.js";
import { h, put } from "../lib/dom.js";
import { go } from "../lib/router.js";
import { may } from "../lib/session.js";
import { filters, isFiltered } from "../parts/filters.js";
import { empty, loading } from "../parts/states.js";
import { pager } from "../parts/table.js";
import { read, rows } from "../parts/task_list.js";
import { doing } from "../parts/toast.js";
import { heading } from "../parts/words.js";

const PATH = ["tasks"];
const STATES = [
  ["", "any"],
  ["queued,scheduled,running,retrying", "not ended"],
  ["dead,retrying", "failed"],
  ...["queued", "scheduled", "running", "retrying", "succeeded", "dead", "cancelled"].map((state) => [state, state]),
];
const ACTIONS = { cancel: "Cancel", run: "Run now", replay: "Replay", purge: "Remove for good" };

export const title = () => "Tasks";

export async function show(room, { query, signal }) {
  const list = h("section", { class: "panel" });
  const form = filters(PATH, query, fields(query));
  put(room, heading("Tasks", may("operate") && bulk(query)), h("section", { class: "panel" }, form), list);
  await loading(list, () => page(query, signal), signal);
}

const fields = (query) => [
  { name: "client_id", label: "Client" },
  { name: "queue", label: "Queue" },
  { name: "state", label: "State", options: STATES.some(([value]) => value === (query.state ?? "")) ? STATES : [...STATES, query.state] },
  { name: "host", label: "Target host", placeholder: "api.example.com" },
  { name: "status", label: "Last status", placeholder: "503", mode: "numeric" },
  { name: "error", label: "Error contains" },
  { name: "label", label: "Label" },
  { name: "task_id", label: "Task id" },
  { name: "min_age", label: "Older than, s", mode: "numeric" },
  { name: "order", label: "Order", options: [["", "newest first"], ["oldest", "oldest first"]] },
];

async function page(query, signal) {
  const { tasks, next } = await read("tasks", query, signal);
  if (tasks.length) return [rows(tasks), pager(PATH, query, next)];
  if (next) return [empty("None so far", "A good many tasks were looked at and none matches. There are more to look at."), pager(PATH, query, next)];
  return isFiltered(query)
    ? empty("No task matches", "Take a filter out. What succeeded is kept for RESULT_TTL, dead letters for DEAD_TTL.")
    : empty("There are no tasks", "A task comes with POST /v1/enqueue; docs/api.md shows how.");
}

/** A choice of what to do to all that match; it begins as a count, on the page of its job. */
function bulk(query) {
  const choice = h(
    "select",
    { "aria-label": "What to do to all that match" },
    Object.entries(ACTIONS).map(([action, label]) => h("option", { value: action }, label)),
  );
  const begin = async () => {
    const { cursor, order, ...chosen } = query;
    const job = await doing(() => call("POST", "jobs", { body: { action: choice.value, filter: filterOf(chosen), dry_run: true } }), "Counting what matches; nothing is changed yet.");
    if (job) go(["jobs", job.job_id]);
  };
  return h("div", { class: "end buttons" }, h("span", { class: "faint" }, "All that match:"), h("span", {}, choice), h("button", { type: "button", onclick: begin }, "Count…"));
}

/** What a listing takes as a text, a job takes as what it is. */
function filterOf(chosen) {
  const numbers = new Set(["status", "min_age", "max_age"]);
  return Object.fromEntries(Object.entries(chosen).map(([name, value]) => [name, numbers.has(name) ? Number(value) : value]));
}
