// One task: why it is where it is, each attempt, and what can be done about it.

import { call, get } from "../lib/api.js";
import { h, put, renew } from "../lib/dom.js";
import { ago, bytes, count, milliseconds, moment, seconds } from "../lib/format.js";
import { repeat } from "../lib/live.js";
import { link } from "../lib/router.js";
import { may } from "../lib/session.js";
import { confirmed } from "../parts/dialog.js";
import { empty, failure, waiting } from "../parts/states.js";
import { pairs } from "../parts/table.js";
import { doing } from "../parts/toast.js";
import { badge, clientLink, heading, outcome, panel } from "../parts/words.js";

const EVERY = 2; // seconds, while it has not ended
const ENDED = new Set(["succeeded", "dead", "cancelled"]);
const LOOKS = { running: "", ended: "", starting: "", not_due: "" };

export const title = ([, id]) => `Task ${id}`;

export function show(room, { path, query, signal, again }) {
  const id = path[1];
  const named = { client_id: query.client_id };
  if (!named.client_id) return put(room, heading(`Task ${id}`), whose(id));
  put(room, heading([h("span", { class: "crumb" }, "Task "), id]), waiting());
  let told = "";
  repeat(
    async () => {
      try {
        const [task, why] = await Promise.all([get(`tasks/${encodeURIComponent(id)}`, named, signal), get(`tasks/${encodeURIComponent(id)}/explain`, named, signal)]);
        const now = JSON.stringify([task, why]);
        if (now !== told && !signal.aborted) renew(room, view(task, why, again));
        told = now;
        return !ENDED.has(task.state);
      } catch (problem) {
        if (problem.name !== "AbortError" && !signal.aborted && problem.status !== 401) put(room, heading(`Task ${id}`), failure(problem, again));
        return problem.status === 503 || problem.status === 0;
      }
    },
    EVERY,
    signal,
  );
}

const whose = (id) => [empty("Whose task is it?", "A task is found by its client and its id."), h("p", {}, h("a", { class: "button", href: link(["tasks"], { task_id: id }) }, "Search all clients for it"))];

function view(task, why, again) {
  return [
    heading([h("span", { class: "crumb" }, "Task "), h("span", { class: "id" }, task.task_id)], badge(task.state), actions(task, again)),
    explanation(why),
    h("div", { class: "grid" }, half(what(task)), half(when(task))),
    panel("Attempts", attempts(task)),
  ];
}

const half = (made) => {
  made.classList.add("half");
  return made;
};

function explanation(why) {
  const look = LOOKS[why.constraint] ?? (why.constraint === "no_dispatcher" ? "bad" : "warn");
  return h(
    "section",
    { class: `why ${look}`, "aria-label": "Why it is where it is" },
    h("p", { class: "headline" }, why.constraint.replaceAll("_", " ")),
    h("p", {}, why.message),
    h(
      "p",
      { class: "faint" },
      why.since && ["since ", moment(why.since), ` (${seconds(Math.max(0, (Date.now() - new Date(why.since)) / 1000))})`],
      why.until && [why.since && " · ", "until ", moment(why.until)],
      why.constraint !== "ended" && [(why.since || why.until) && " · ", `${count(why.in_flight)} of ${count(why.max_concurrent)} calls of the client are open`],
    ),
    why.blocking.length > 0 && h("p", {}, "In flight before it: ", why.blocking.map((id, index) => [index > 0 && ", ", h("a", { class: "id", href: link(["tasks", id], { client_id: why.client_id }) }, id)])),
  );
}

const what = (task) =>
  panel(
    "What it calls",
    pairs(
      ["Target", [h("b", {}, `${task.method} `), h("span", { class: "id" }, task.url)]],
      ["Client", clientLink(task.client_id)],
      ["Queue", task.queue],
      ["Labels", task.labels?.length ? task.labels.map((label) => [badge(label), " "]) : "none"],
      task.trace_id && ["Trace", h("span", { class: "id" }, task.trace_id)],
      ["Size", task.size === undefined ? null : `${bytes(task.size)} as it is kept`],
      ["Timeout", task.timeout === undefined ? null : seconds(task.timeout)],
      task.max_concurrent ? ["Its own bound", `${count(task.max_concurrent)} calls at once`] : null,
    ),
  );

const when = (task) =>
  panel(
    "When",
    pairs(
      ["Created", [moment(task.created_at), " · ", ago(task.created_at)]],
      task.run_at && ["To start at", moment(task.run_at)],
      task.next_attempt_at && ["Next attempt", [moment(task.next_attempt_at), " · ", ago(task.next_attempt_at)]],
      task.expires_at && ["Expires", moment(task.expires_at)],
      task.finished_at && ["Ended", [moment(task.finished_at), " · ", ago(task.finished_at)]],
      ["Attempts", `${task.attempts} of ${task.max_retry + 1}`],
      task.reason && ["Reason", h("b", {}, task.reason)],
    ),
  );

function attempts(task) {
  const all = task.history ?? (task.last_attempt ? [task.last_attempt] : []);
  if (!all.length) return empty("It has not been tried yet", null);
  const first = task.attempts - all.length + 1;
  return all
    .map((attempt, index) =>
      h(
        "article",
        { class: "attempt" },
        h("div", { class: "heading" }, h("h3", {}, `Attempt ${Math.max(1, first) + index}`), outcome(attempt), h("span", { class: "faint" }, moment(attempt.started_at), ` · took ${milliseconds(attempt.duration_ms)}`)),
        attempt.error && attempt.status !== null && h("p", {}, attempt.error),
        attempt.body ? h("pre", { class: "body", tabindex: "0", role: "region", "aria-label": `Answer to attempt ${Math.max(1, first) + index}` }, attempt.body) : h("p", { class: "faint" }, attempt.status === null ? "No answer." : "An answer without a body."),
      ),
    )
    .reverse();
}

function actions(task, again) {
  if (!may("operate")) return null;
  const path = `tasks/${encodeURIComponent(task.task_id)}`;
  const query = { client_id: task.client_id };
  const button = (label, work, look) => h("button", { type: "button", class: look, onclick: work }, label);
  const run = async () => (await doing(() => call("POST", `${path}/run`, { query }), "It is due now.")) && again();
  const replay = async () => (await doing(() => call("POST", `${path}/replay`, { query }), "It is queued again.")) && again();
  const cancel = async () => {
    const sure = await confirmed("Cancel this task?", h("p", {}, "It will not be called. This can’t be undone."), { action: "Cancel the task", danger: true });
    if (sure && (await doing(() => call("DELETE", path, { query }), "It is cancelled."))) again();
  };
  return h(
    "div",
    { class: "end" },
    ["scheduled", "retrying"].includes(task.state) && button("Run now", run),
    task.state === "dead" && button("Replay", replay),
    ["queued", "scheduled", "retrying"].includes(task.state) && button("Cancel…", cancel, "danger"),
  );
}
