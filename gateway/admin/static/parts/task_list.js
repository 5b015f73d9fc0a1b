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

/** The table; `client`, `state`: whether it has these. `last`: what the last answer is called. `more`: further columns. */
export function rows(tasks, { client = true, state = true, last = "Last", more = [] } = {}) {
  return table(
    "Tasks",
    [
      { label: "Task", cell: (task) => [taskLink(task), labels(task), target(task)], wide: true },
      client && { label: "Client", cell: (task) => clientLink(task.client_id) },
      { label: "Queue", cell: (task) => task.queue },
      state && { label: "State", cell: (task) => badge(task.state) },
      { label: "Attempts", cell: (task) => `${task.attempts} of ${task.max_retry + 1}`, number: true },
      { label: last, cell: ended },
      { label: "When", cell: when, number: true },
      ...more,
    ].filter(Boolean),
    tasks,
  );
}

/** The last answer, and the reason where that is another. */
function ended(task) {
  const { reason, last_attempt: last } = task;
  const same = !reason || (last && (reason === last.error || reason === `http ${last.status}`));
  return same ? outcome(last) : [last && [outcome(last), " "], reason];
}

/** Below the id: in a column of its own a URL would have a few letters a line, or push what follows off the page. */
const target = (task) => h("div", {}, h("span", { class: "faint" }, `${task.method} `), task.url);

const labels = (task) => task.labels?.map((label) => [" ", badge(label, "faint")]);

function when(task) {
  if (task.finished_at) return ago(task.finished_at);
  if (task.next_attempt_at && new Date(task.next_attempt_at) > Date.now()) return [`due in ${seconds((new Date(task.next_attempt_at) - Date.now()) / 1000)}`];
  return ago(task.created_at);
}
