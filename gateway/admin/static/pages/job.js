// One action in bulk: its count, then its start, its progress and its end.

import { call, get } from "../lib/api.js";
import { h, put, renew } from "../lib/dom.js";
import { count, moment, plural } from "../lib/format.js";
import { repeat } from "../lib/live.js";
import { may } from "../lib/session.js";
import { confirmed } from "../parts/dialog.js";
import { failure, waiting } from "../parts/states.js";
import { pairs } from "../parts/table.js";
import { doing } from "../parts/toast.js";
import { badge, heading, meter, panel } from "../parts/words.js";
import { about } from "./jobs.js";

const BUSY = new Set(["counting", "running"]);
const WORDS = { cancel: "cancelled", run: "made due now", replay: "queued again", purge: "removed for good" };

export const title = ([, id]) => `Job ${id}`;

export function show(room, { path, signal, again }) {
  const place = `jobs/${encodeURIComponent(path[1])}`;
  put(room, heading(`Job ${path[1]}`), waiting());
  let told = "";
  repeat(
    async () => {
      try {
        const job = await get(place, {}, signal);
        if (JSON.stringify(job) !== told && !signal.aborted) renew(room, view(job, place, again));
        told = JSON.stringify(job);
        return BUSY.has(job.state);
      } catch (problem) {
        if (problem.name !== "AbortError" && !signal.aborted && problem.status !== 401) put(room, heading("Job"), failure(problem, again));
        return problem.status === 503 || problem.status === 0;
      }
    },
    1,
    signal,
  );
}

function view(job, place, again) {
  return [
    heading([h("span", { class: "crumb" }, "Job "), h("span", { class: "id" }, job.job_id)], badge(job.state), buttons(job, place, again)),
    h("section", { class: job.state === "failed" ? "why bad" : "why", "aria-live": "polite" }, h("p", { class: "headline" }, headline(job)), job.message && h("p", {}, job.message)),
    panel(
      "Progress",
      ["running", "done", "aborted"].includes(job.state) && h("div", { class: "meters" }, meter("Changed", job.changed, Math.max(job.matched, job.changed))),
      pairs(
        ["Action", job.action],
        ["Filter", about(job.filter)],
        ["Looked at", count(job.looked_at)],
        ["Matched", count(job.matched)],
        ["Changed", count(job.changed)],
        ["Skipped", count(job.skipped)],
        ["Begun", [moment(job.created_at), ` from ${job.address}`, job.key && ` with ${job.key}`]],
        job.started_at && ["Started", moment(job.started_at)],
        job.finished_at && ["Ended", moment(job.finished_at)],
        job.worker && ["Done by", job.worker],
        job.taken_over ? ["Taken over", plural(job.taken_over, "time")] : null,
      ),
    ),
  ];
}

function headline(job) {
  const tasks = plural(job.matched, "task");
  return {
    counting: `Counting: ${tasks} so far. Nothing is changed yet.`,
    counted: job.matched ? `${tasks} would be ${WORDS[job.action]}. Nothing is changed yet.` : "Nothing matches, so there is nothing to do.",
    running: `${count(job.changed)} of ${tasks} ${WORDS[job.action]}.`,
    done: `${plural(job.changed, "task")} ${WORDS[job.action]}.`,
    aborted: `Aborted: ${plural(job.changed, "task")} ${WORDS[job.action]} before that.`,
    failed: `It failed after ${plural(job.changed, "task")}.`,
  }[job.state];
}

function buttons(job, place, again) {
  if (!may("operate")) return null;
  const start = async () => {
    const danger = job.action === "purge" || job.action === "cancel";
    const sure = await confirmed(`${count(job.matched)} tasks: ${job.action}?`, h("p", {}, `${about(job.filter)}: they are ${WORDS[job.action]}.${danger ? " This can’t be undone." : ""}`), { action: "Start", danger });
    if (sure && (await doing(() => call("POST", `${place}/start`), "It runs."))) again();
  };
  const abort = async () => (await doing(() => call("DELETE", place), "It is aborted.")) && again();
  return h(
    "div",
    { class: "end" },
    job.state === "counted" && job.matched > 0 && h("button", { type: "button", class: "primary", onclick: start }, "Start…"),
    ["counting", "counted", "running"].includes(job.state) && h("button", { type: "button", onclick: abort }, job.state === "counted" ? "Discard" : "Abort"),
  );
}
