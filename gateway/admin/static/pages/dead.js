// What was given up: looked at, put back on its queue, removed for good; one by one, or all that match.

import { call } from "../lib/api.js";
import { h, put } from "../lib/dom.js";
import { plural } from "../lib/format.js";
import { go } from "../lib/router.js";
import { may } from "../lib/session.js";
import { confirmed } from "../parts/dialog.js";
import { filters, isFiltered } from "../parts/filters.js";
import { empty, loading } from "../parts/states.js";
import { pager } from "../parts/table.js";
import { read, rows } from "../parts/task_list.js";
import { doing } from "../parts/toast.js";
import { heading } from "../parts/words.js";

const PATH = ["dead"];
const FIELDS = [
  { name: "client_id", label: "Client" },
  { name: "error", label: "Error or status", placeholder: "503, timeout" },
  { name: "queue", label: "Queue" },
  { name: "host", label: "Target host" },
  { name: "label", label: "Label" },
  { name: "after", label: "Died since", moment: true },
  { name: "before", label: "Died before", moment: true },
];

export const title = () => "Dead letters";

export async function show(room, { query, signal, again }) {
  const list = h("section", { class: "panel" });
  const all = (action) => () => everything(action, query, again);
  const buttons =
    may("operate") &&
    h("div", { class: "end" }, h("button", { type: "button", onclick: all("replay") }, "Replay all that match…"), h("button", { type: "button", class: "danger", onclick: all("purge") }, "Purge all that match…"));
  put(room, heading("Dead letters", buttons), h("section", { class: "panel" }, filters(PATH, query, FIELDS)), list);
  await loading(list, () => page(query, signal, again), signal);
}

async function page(query, signal, again) {
  const { tasks, next } = await read("dead", query, signal);
  const doable = may("operate") ? [{ label: "Do", number: true, cell: (task) => buttons(task, again) }] : [];
  if (tasks.length) return [rows(tasks, { state: false, last: "Reason", more: doable }), pager(PATH, query, next)];
  if (next) return [empty("None so far", "There are more dead letters to look at."), pager(PATH, query, next)];
  return isFiltered(query)
    ? empty("No dead letter matches", "Take a filter out. Dead letters are kept for DEAD_TTL, the newest MAX_DEAD_PER_CLIENT of each client.")
    : empty("There are no dead letters", "A task comes here when its target refuses it for good, or its retries are used up.");
}

function buttons(task, again) {
  const named = { client_id: task.client_id, task_id: task.task_id };
  const replay = async () => {
    if (await doing(() => call("POST", "dead/replay", { query: named }), "It is queued again.")) again();
  };
  const purge = async () => {
    const sure = await confirmed("Remove this dead letter?", h("p", {}, "It can’t be looked at or replayed any more."), { action: "Remove", danger: true });
    if (sure && (await doing(() => call("DELETE", "dead", { query: named }), "It is removed."))) again();
  };
  return h(
    "span",
    { class: "actions" },
    h("button", { type: "button", class: "small", "aria-label": `Replay ${task.task_id}`, onclick: replay }, "Replay"),
    h("button", { type: "button", class: "small danger", "aria-label": `Purge ${task.task_id}`, onclick: purge }, "Purge…"),
  );
}

/** Of one client at once; of all clients as a job, which is on its own page and can be aborted. */
async function everything(action, query, again) {
  const { cursor, order, ...chosen } = query;
  const whose = chosen.client_id ? ["of ", h("b", {}, chosen.client_id)] : h("b", {}, "of every client");
  const which = isFiltered(chosen) && Object.keys(chosen).some((name) => name !== "client_id") ? " that match the filters" : "";
  const words = action === "replay" ? "are queued again, as if they had just been enqueued." : "are removed for good. This can’t be undone.";
  const sure = await confirmed(action === "replay" ? "Replay dead letters?" : "Purge dead letters?", h("p", {}, "All dead letters ", whose, which, ` ${words}`), {
    action: action === "replay" ? "Replay" : "Purge",
    danger: action === "purge",
    typed: action === "purge" ? (chosen.client_id ?? "every client") : null,
  });
  if (!sure) return;
  const [method, path] = action === "replay" ? ["POST", "dead/replay"] : ["DELETE", "dead"];
  const done = await doing(
    () => call(method, path, { query: chosen }),
    (told) => (told.job_id ? "A job does it." : `${plural(told.tasks, "dead letter")} ${action === "replay" ? "queued again" : "removed"}.`),
  );
  if (done?.job_id) go(["jobs", done.job_id]);
  else if (done) again();
}
