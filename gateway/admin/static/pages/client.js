// One client: what it may against what it uses, its queues, its tasks; pause, resume, edit.

import { call, get } from "../lib/api.js";
import { h, put, renew } from "../lib/dom.js";
import { bytes, count, moment, percent, plural, seconds } from "../lib/format.js";
import { live } from "../lib/live.js";
import { go, link } from "../lib/router.js";
import { may } from "../lib/session.js";
import { chart } from "../parts/chart.js";
import { edit, hostsOf } from "../parts/client_form.js";
import { sections } from "../parts/client_secrets.js";
import { confirmed } from "../parts/dialog.js";
import { empty, failure, loading, waiting } from "../parts/states.js";
import { pairs, table } from "../parts/table.js";
import { rows as taskRows } from "../parts/task_list.js";
import { doing } from "../parts/toast.js";
import { badge, heading, meter, panel } from "../parts/words.js";

export const title = ([, id]) => id;

export async function show(room, { path, query, signal, again }) {
  const id = path[1];
  await loading(
    room,
    async () => {
      const client = await get("clients/get", { client_id: id }, signal);
      const badges = h("span", { class: "row" });
      const buttons = h("div", { class: "end" });
      const use = h("section", { class: "panel third" }, waiting());
      const queues = h("section", { class: "panel two-thirds" }, waiting());
      const history = h("section", { class: "panel" });
      const recent = h("section", { class: "panel" });
      watch(client, { badges, buttons, use, queues }, signal, again);
      loading(history, () => usage(id, query, signal), signal);
      loading(recent, () => tasks(id, signal), signal);
      return [
        heading([h("span", { class: "crumb" }, "Client "), id], badge(client.tier, "calm"), badges, buttons),
        h("div", { class: "grid" }, use, queues),
        history,
        recent,
        settings(client),
        sections(id, signal),
      ];
    },
    signal,
    heading([h("span", { class: "crumb" }, "Client "), id]),
  );
}

function watch(client, { badges, buttons, use, queues }, signal, again) {
  live(
    [`clients/usage?client_id=${encodeURIComponent(client.client_id)}`],
    (now) => {
      renew(badges, !client.enabled && badge("disabled", "bad"), now.paused && badge("paused", "warn"));
      renew(buttons, actions(client, now, again));
      renew(use, h("h2", {}, "Limits against use"), meters(now));
      renew(queues, h("h2", {}, "Queues"), queueTable(now));
    },
    (problem) => put(use, failure(problem, again)),
    signal,
  );
}

function meters(now) {
  return [
    h(
      "div",
      { class: "meters" },
      meter("Calls at once", now.in_flight, now.rate_limit.max_concurrent),
      meter("Requests in the last minute", now.current_usage, now.rate_limit.requests_per_min),
    ),
    pairs(
      ["Waiting", `${plural(now.queued, "task")}${now.queued_bytes === undefined ? "" : `, ${bytes(now.queued_bytes)}`}`],
      ["Oldest waiting", now.oldest_waiting === null ? "none" : seconds(now.oldest_waiting)],
      ["Scheduled", plural(now.scheduled, "task")],
      ["Dead letters", now.dead ? h("a", { href: link(["dead"], { client_id: now.client_id }) }, count(now.dead)) : "none"],
      now.recent && ["Ended, last 5 min", `${count(now.recent.ended)}, ${now.error_rate === null ? "none failed" : `${percent(now.recent.dead, now.recent.ended)} dead`}`],
    ),
  ];
}

function queueTable(now) {
  if (!now.queues?.length) return empty("No queue is in use", "A queue is there from the first task that names it.");
  return table(
    "Queues of this client",
    [
      { label: "Queue", cell: (one) => h("a", { href: link(["tasks"], { client_id: now.client_id, queue: one.queue }) }, one.queue), wide: true },
      { label: "State", cell: (one) => (one.paused || now.paused ? badge("paused", "warn") : badge("runs", "good")) },
      { label: "Queued", cell: (one) => count(one.queued), number: true },
      { label: "In flight", cell: (one) => count(one.in_flight), number: true },
      { label: "Oldest waits", cell: (one) => seconds(one.oldest_waiting), number: true },
      ...(may("operate") ? [{ label: "Do", number: true, cell: (one) => queueButtons(now, one) }] : []),
    ],
    now.queues,
  );
}

function queueButtons(now, { queue, paused }) {
  const named = { client_id: now.client_id, queue };
  const flip = paused ? "resume" : "pause";
  return h(
    "span",
    { class: "actions" },
    h("button", { type: "button", class: "small", "aria-label": `${paused ? "Resume" : "Pause"} ${queue}`, onclick: () => doing(() => call("POST", `clients/${flip}`, { query: named }), `Queue ${queue} is ${paused ? "resumed" : "paused"}.`) }, paused ? "Resume" : "Pause"),
    h("button", { type: "button", class: "small danger", "aria-label": `Purge ${queue}`, onclick: () => purge(named) }, "Purge…"),
  );
}

async function purge(named) {
  const text = `Every task of ${named.client_id} that waits in ${named.queue} is cancelled, delayed ones and retries included. What runs goes on. This can’t be undone.`;
  if (await confirmed(`Purge ${named.queue}?`, h("p", {}, text), { action: "Cancel them all", danger: true, typed: named.queue })) {
    await doing(() => call("POST", "queues/purge", { query: named }), (done) => `${plural(done.tasks, "task")} cancelled.`);
  }
}

function actions(client, now, again) {
  const named = { client_id: client.client_id };
  const flip = now.paused ? "resume" : "pause";
  const ask = async () => {
    const text = now.paused ? "Its waiting tasks start again, within its limits." : "None of its waiting tasks start until it is resumed, on any replica. What runs goes on, what is enqueued is accepted.";
    if (await confirmed(`${now.paused ? "Resume" : "Pause"} ${client.client_id}?`, h("p", {}, text), { action: now.paused ? "Resume" : "Pause" })) {
      await doing(() => call("POST", `clients/${flip}`, { query: named }), `${client.client_id} is ${now.paused ? "resumed" : "paused"}.`);
    }
  };
  return [
    may("operate") && h("button", { type: "button", onclick: ask }, now.paused ? "Resume…" : "Pause…"),
    may("admin") && h("button", { type: "button", onclick: () => edit(client.client_id, again) }, "Edit…"),
    may("admin") && h("button", { type: "button", class: "danger", onclick: () => remove(client) }, "Delete…"),
  ];
}

async function remove({ client_id: id }) {
  const cancel = h("input", { type: "checkbox" });
  const text = "Its settings are removed. What it has queued still runs, under the default tier’s limits, unless it is cancelled too.";
  const content = [h("p", {}, text), h("label", { class: "field check" }, cancel, h("span", {}, "Cancel what it has queued"))];
  if (!(await confirmed(`Delete ${id}?`, content, { action: "Delete", danger: true, typed: id }))) return;
  if (await doing(() => call("DELETE", "clients/delete", { query: { client_id: id, cancel_tasks: cancel.checked } }), `${id} is deleted.`)) go(["clients"]);
}

async function usage(id, query, signal) {
  const step = query.step === "hour" ? "hour" : "minute";
  const told = await get("usage", { client_id: id, step }, signal);
  const times = told.points.map((point) => point.at);
  const of = (label, look, field) => ({ label, look, values: told.points.map((point) => point[field]) });
  const other = step === "hour" ? ["minute", "last hour"] : ["hour", "last day"];
  return [
    h("div", { class: "head" }, h("h2", {}, step === "hour" ? "The last day, by hours" : "The last hour, by minutes"), h("a", { href: link(["clients", id], { step: other[0] }) }, `Show the ${other[1]}`)),
    h(
      "div",
      { class: "grid" },
      h("div", { class: "third" }, chart("Requests", times, [of("admitted", "one", "admitted"), of("refused", "two", "refused")], { bars: true, show: count })),
      h("div", { class: "third" }, chart("Calls", times, [of("delivered", "three", "delivered"), of("failed", "four", "failed")], { bars: true, show: count })),
      h("div", { class: "third" }, chart("Duration", times, [of("p50", "one", "duration_p50"), of("p95", "five", "duration_p95")], { show: seconds })),
    ),
    h("p", { class: "faint" }, `In all ${plural(told.total.admitted, "request")} admitted, ${count(told.total.refused)} refused; ${plural(told.total.delivered, "call")} delivered, ${count(told.total.failed)} failed.`),
  ];
}

async function tasks(id, signal) {
  const told = await get("tasks", { client_id: id, limit: 10 }, signal);
  return [
    h("div", { class: "head" }, h("h2", {}, "Tasks"), h("a", { href: link(["tasks"], { client_id: id }) }, "All of its tasks")),
    told.tasks.length ? taskRows(told.tasks, { client: false }) : empty("It has no tasks that are kept", "What succeeded is kept for RESULT_TTL."),
  ];
}

const settings = (client) =>
  panel(
    "Settings",
    pairs(
      ["Limits", `${count(client.rate_limit.max_concurrent)} at once, ${count(client.rate_limit.requests_per_min)} a minute (${client.source === "tier" ? "the tier’s" : "its own"})`],
      ["Queues", client.allowed_queues?.join(", ") ?? "all"],
      ["Target hosts", hostsOf(client)],
      ["New requests", client.enabled ? "taken" : "refused"],
      ["Created", moment(client.created_at)],
      ["Changed", moment(client.updated_at)],
      ["Changes", h("a", { href: link(["audit"], { client_id: client.client_id }) }, "in the audit log")],
    ),
  );
