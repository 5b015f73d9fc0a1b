// Small things that several views show: links to what has a page of its own, states as badges, meters.

import { h } from "../lib/dom.js";
import { count } from "../lib/format.js";
import { link } from "../lib/router.js";

const LOOKS = {
  queued: "calm",
  scheduled: "calm",
  running: "good",
  retrying: "warn",
  succeeded: "good",
  dead: "bad",
  cancelled: "faint",
  counting: "calm",
  counted: "warn",
  done: "good",
  failed: "bad",
  aborted: "faint",
};

export const badge = (word, look = LOOKS[word] ?? "faint") => h("span", { class: `badge ${look}` }, word);

export const clientLink = (id) => h("a", { href: link(["clients", id]), class: "id" }, id);

export const taskLink = (task) => h("a", { href: link(["tasks", task.task_id], { client_id: task.client_id }), class: "id" }, task.task_id);

/** The last attempt in a word: its status, or the error instead of one. */
export function outcome(attempt) {
  if (!attempt) return "–";
  if (attempt.status === null) return badge(attempt.error ?? "no answer", "bad");
  return badge(String(attempt.status), attempt.status < 300 ? "good" : attempt.status < 500 && attempt.status !== 429 ? "bad" : "warn");
}

/** What is used of a bound. */
export function meter(label, used, most, unit = "") {
  const share = most ? Math.min(1, used / most) : 0;
  const bar = h("span", { class: share >= 1 ? "full" : share >= 0.8 ? "high" : null });
  bar.style.inlineSize = `${(100 * share).toFixed(1)}%`;
  return h(
    "div",
    { class: "meter" },
    h("div", { class: "told" }, h("span", {}, label), h("span", {}, h("b", {}, count(used)), ` of ${count(most)}${unit}`)),
    h("div", { class: "track", role: "img", "aria-label": `${label}: ${count(used)} of ${count(most)}${unit}` }, bar),
  );
}

export const heading = (title, ...more) => h("div", { class: "heading" }, h("h1", { tabindex: "-1" }, title), more);

export const panel = (title, ...content) => h("section", { class: "panel" }, h("h2", {}, title), content);
