// The first page: which client is refused most, what waits longest and why, what failed and with which status; then the
// figures behind it.

import { h, put, renew } from "../lib/dom.js";
import { ago, bytes, count, percent, plural, seconds } from "../lib/format.js";
import { live } from "../lib/live.js";
import { link } from "../lib/router.js";
import { chart } from "../parts/chart.js";
import { failure, waiting } from "../parts/states.js";
import { pairs, table } from "../parts/table.js";
import { clientLink, heading, meter, panel } from "../parts/words.js";

const BOUNDS = { concurrency: "Calls at once", window: "Requests a minute", depth: "Tasks waiting" };
const KEPT = 150; // looks of the live chart: 12 minutes of them

export const title = () => "Overview";

export function show(room, { signal, again }) {
  const body = h("div", { class: "view" }, waiting());
  const age = h("span", { class: "faint" });
  const trail = [];
  put(room, heading("Overview", age), body);
  live(
    ["overview"],
    (told) => {
      renew(age, "as of ", ago(told.at), told.sampled && "; of so many clients some at a time, so the totals lag (see Bounds)");
      if (trail.at(-1)?.at !== told.at) trail.push({ at: told.at, ...told.totals });
      if (trail.length > KEPT) trail.shift();
      renew(body, answers(told), tiles(told), charts(told, trail), details(told));
    },
    (problem) => put(body, failure({ ...problem, status: problem.error === "Service unavailable" ? 503 : undefined }, again)),
    signal,
  );
}

const answers = (told) => h("div", { class: "grid" }, refused(told), oldest(told), failed(told));

const answer = (question, headline, ...more) => {
  const made = panel(question, h("p", { class: "headline" }, headline), more);
  made.classList.add("answer", "third");
  return made;
};

function refused({ refused_most: most, last_hour: hour }) {
  if (!most.length) return answer("Refused most, last hour", "Nobody was refused");
  return answer(
    "Refused most, last hour",
    [clientLink(most[0].client_id), ` ${plural(most[0].refused, "request")} refused`],
    ranks(most.slice(0, 5), (one) => [clientLink(one.client_id), " ", h("span", { class: "faint" }, one.tier)], (one) => one.refused),
    h("p", { class: "faint" }, `${percent(hour.refused, hour.refused + hour.admitted)} of all requests were refused.`),
  );
}

function oldest({ oldest_waiting: one, waiting_longest: longest }) {
  if (one === null) return answer("Waits longest", "Nothing waits", h("p", { class: "faint" }, "Every task that is due has been started."));
  return answer(
    "Waits longest",
    [`${seconds(one.seconds)}: `, clientLink(one.client_id), `, queue ${one.queue}`],
    h("p", {}, h("b", {}, one.constraint.replaceAll("_", " ")), `: ${one.message}`),
    h("p", {}, "Task ", h("a", { class: "id", href: link(["tasks", one.task_id], { client_id: one.client_id }) }, one.task_id)),
    longest.length > 1 && ranks(longest.slice(1, 4), (other) => clientLink(other.client_id), (other) => other.seconds, seconds),
  );
}

function failed({ failures, failed_most: most, last_hour: hour }) {
  const statuses = failures.by_status;
  if (!statuses.length) return answer("Failed, last hour", "No call failed", h("p", { class: "faint" }, `${plural(hour.delivered, "call")} delivered.`));
  const dead = (status) => link(["tasks"], /^\d+$/.test(status) ? { status, state: "dead,retrying" } : { error: status, state: "dead,retrying" });
  return answer(
    "Failed, last hour",
    [`${plural(hour.failed, "call")} failed, most with `, h("a", { href: dead(statuses[0].status) }, statuses[0].status)],
    ranks(statuses.slice(0, 4), (one) => h("a", { href: dead(one.status) }, one.status), (one) => one.count),
    most.length > 0 && h("p", {}, "Most of ", clientLink(most[0].client_id), ` (${count(most[0].failed)})`, failures.by_host.length > 0 && [", to ", h("a", { class: "id", href: link(["tasks"], { host: failures.by_host[0].host }) }, failures.by_host[0].host)]),
  );
}

function ranks(rows, name, value, show = count) {
  const most = Math.max(...rows.map(value));
  return h(
    "ul",
    { class: "ranks" },
    rows.map((row) => {
      const share = h("span", { class: "share", "aria-hidden": "true" });
      share.style.inlineSize = `${(100 * value(row)) / most}%`;
      return h("li", {}, share, h("span", { class: "what" }, name(row)), h("span", { class: "value" }, show(value(row))));
    }),
  );
}

function tile(name, value, note, look) {
  return h("div", { class: look ? `tile ${look}` : "tile" }, h("div", { class: "name" }, name), h("div", { class: "value" }, value), note && h("div", { class: "note" }, note));
}

function tiles({ totals, saturation, clients, replicas, redis, oldest_waiting: oldestWaiting, upgrade_candidates: outgrown }) {
  const dispatchers = replicas.filter((one) => one.role === "all" || one.role === "dispatcher").length;
  return h(
    "div",
    { class: "tiles" },
    tile("Queued", count(totals.queued), oldestWaiting ? `oldest ${seconds(oldestWaiting.seconds)}` : "nothing waits", saturation.waiting >= saturation.max_queued ? "bad" : null),
    tile("In flight", count(totals.in_flight), `of ${count(saturation.max_in_flight)}`, totals.in_flight && totals.in_flight >= saturation.max_in_flight ? "warn" : null),
    tile("Scheduled", count(totals.scheduled), "delays and retries"),
    tile("Dead letters", count(totals.dead), totals.dead ? h("a", { href: link(["dead"]) }, "look at them") : "none", totals.dead ? "warn" : null),
    tile("Clients", count(clients.active), `active of ${count(clients.known)}${outgrown ? `, ${count(outgrown)} outgrow their tier` : ""}`),
    tile("Replicas", count(replicas.length), dispatchers ? `${count(dispatchers)} make calls` : "none makes calls", dispatchers ? null : "bad"),
    tile("Redis", redis.ok ? "ok" : "not ok", redis.ok ? `${redis.version}, ${redis.latency_ms} ms, ${bytes(redis.memory_used_bytes)}` : "out of reach", redis.ok && redis.persistence_ok ? null : "bad"),
  );
}

function charts({ minutes }, trail) {
  const times = minutes.map((minute) => minute.at);
  const of = (label, look, field) => ({ label, look, values: minutes.map((minute) => minute[field]) });
  const half = (...parts) => {
    const made = h("section", { class: "panel half" }, parts);
    return made;
  };
  const now = (label, look, field) => ({ label, look, values: trail.map((look_) => look_[field]) });
  return h(
    "div",
    { class: "grid" },
    half(chart("Requests a minute", times, [of("admitted", "one", "admitted"), of("refused", "two", "refused")], { bars: true, show: count })),
    half(chart("Calls a minute", times, [of("delivered", "three", "delivered"), of("failed", "four", "failed")], { bars: true, show: count })),
    half(chart("Duration of calls", times, [of("p50", "one", "duration_p50"), of("p95", "five", "duration_p95")], { show: seconds })),
    half(chart("Now", trail.map((look) => look.at), [now("queued", "two", "queued"), now("in flight", "one", "in_flight")], { show: count, whole: true })),
  );
}

function details({ waiting_longest: longest, saturation, tiers, failures, sampled }) {
  const bounds = panel(
    "Bounds",
    h(
      "div",
      { class: "meters" },
      meter("Calls open", saturation.in_flight, saturation.max_in_flight),
      meter("Tasks that wait or run", saturation.waiting, saturation.max_queued),
    ),
    pairs(...saturation.clients.map(({ limit, highest, at_limit: many }) => [BOUNDS[limit] ?? limit, `${plural(many, "client")} at it; the most used ${percent(highest, 1)}`])),
    sampled && h("p", { class: "faint" }, "More clients are active than one look covers: what is told of each is up to 5 s old for every 1,000 of them."),
  );
  bounds.classList.add("third");
  const waits = panel(
    "Clients whose tasks wait",
    longest.length
      ? table(
          "Clients whose tasks wait, longest first",
          [
            { label: "Client", cell: (one) => clientLink(one.client_id), wide: true },
            { label: "Longest", cell: (one) => seconds(one.seconds), number: true },
            { label: "Queued", cell: (one) => count(one.queued), number: true },
            { label: "In flight", cell: (one) => count(one.in_flight), number: true },
          ],
          longest,
        )
      : h("p", { class: "faint" }, "None."),
  );
  waits.classList.add("third");
  const hosts = panel(
    failures.by_host.length ? "Targets that failed, last hour" : "Tiers",
    failures.by_host.length
      ? ranks(failures.by_host.slice(0, 8), (one) => h("a", { class: "id", href: link(["tasks"], { host: one.host }) }, one.host), (one) => one.count)
      : tiers.length
        ? ranks(tiers, (one) => h("a", { href: link(["clients"], { tier: one.tier }) }, one.tier), (one) => one.clients)
        : h("p", { class: "faint" }, "There are no clients yet: the first task of one creates it."),
  );
  hosts.classList.add("third");
  return h("div", { class: "grid" }, waits, hosts, bounds);
}
