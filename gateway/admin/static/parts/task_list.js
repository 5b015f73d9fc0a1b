// Lists of tasks, as several views have them, and how such a list is read from the gateway.

import { get } from "../lib/api.js";
import { h } from "../lib/dom.js";
import { ago, seconds } from "../lib/format.js";
import { badge, clientLink, outcome, taskLink } from "./words.js";
import { table } from "./table.js";

const LIMIT = 50;
const LOOKS = 5; // pages asked for before the reader is asked whether to go on

/**
 * A page of tasks and where the next one begins. The gateway looks at 2,000 tasks a time, so with filters a page may be
 * short or empty and still have a next: those are put together here.
 */
export async function read(path, query, signal) {
  const tasks = [];
  let { cursor } = query;
  for (let look = 0; look < LOOKS; look += 1) {
    const told = await get(path, { ...query, cursor, limit: LIMIT - tasks.length }, signal);
    tasks.push(...told.tasks);
    cursor = told.next_cursor;
    if (!cursor || tasks.length >= LIMIT) break;
  }
  return { tasks, next: cursor };
}

/** The table; `client`, `state`: whether it has these. `more`: further columns. */
export function rows(tasks, { client = true, state = true, more = [] } = {}) {
  return table(
    "Tasks",
    [
      { label: "Task", cell: taskLink },
      client && { label: "Client", cell: (task) => clientLink(task.client_id) },
      { label: "Queue", cell: (task) => task.queue },
      state && { label: "State", cell: (task) => badge(task.state) },
      { label: "Target", cell: (task) => [h("span", { class: "faint" }, `${task.method} `), task.url, labels(task)], wide: true },
      { label: "Attempts", cell: (task) => `${task.attempts} of ${task.max_retry + 1}`, number: true },
      { label: "Last", cell: (task) => outcome(task.last_attempt) },
      { label: "When", cell: when, number: true },
      ...more,
    ].filter(Boolean),
    tasks,
  );
}

const labels = (task) => task.labels?.map((label) => [" ", badge(label, "faint")]);

function when(task) {
  if (task.finished_at) return ago(task.finished_at);
  if (task.next_attempt_at && new Date(task.next_attempt_at) > Date.now()) return [`due in ${seconds((new Date(task.next_attempt_at) - Date.now()) / 1000)}`];
  return ago(task.created_at);
}
