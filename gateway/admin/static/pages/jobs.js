// Actions in bulk: what was begun, how far it is, what came of it.

import { get } from "../lib/api.js";
import { h, put } from "../lib/dom.js";
import { ago, count } from "../lib/format.js";
import { link } from "../lib/router.js";
import { empty, loading } from "../parts/states.js";
import { table } from "../parts/table.js";
import { badge, heading } from "../parts/words.js";

export const title = () => "Jobs";

export async function show(room, { signal }) {
  const list = h("section", { class: "panel" });
  put(room, heading("Jobs", h("span", { class: "faint" }, "the last 100, newest first")), list);
  await loading(list, () => page(signal), signal);
}

async function page(signal) {
  const told = await get("jobs", {}, signal);
  if (!told.jobs.length) return empty("There are no jobs", "Filter the tasks, choose what to do to all that match, and count them: that is a job.");
  return table("Jobs, newest first", COLUMNS, told.jobs);
}

/** What a job is about, in words. */
export function about(filter) {
  const given = Object.entries(filter ?? {}).filter(([, value]) => value !== null && value !== undefined);
  return given.length ? given.map(([name, value]) => `${name.replaceAll("_", " ")} ${value}`).join(", ") : "all tasks";
}

const COLUMNS = [
  { label: "Job", cell: (job) => h("a", { class: "id", href: link(["jobs", job.job_id]) }, job.job_id) },
  { label: "Action", cell: (job) => job.action },
  { label: "Filter", cell: (job) => about(job.filter), wide: true },
  { label: "State", cell: (job) => badge(job.state) },
  { label: "Matched", cell: (job) => count(job.matched), number: true },
  { label: "Changed", cell: (job) => count(job.changed), number: true },
  { label: "Begun", cell: (job) => ago(job.created_at), number: true },
];
