// The processes of the gateway, and the Redis they share.

import { h, put, renew } from "../lib/dom.js";
import { ago, bytes, count, seconds } from "../lib/format.js";
import { live } from "../lib/live.js";
import { empty, failure, waiting } from "../parts/states.js";
import { pairs, table } from "../parts/table.js";
import { badge, heading } from "../parts/words.js";

export const title = () => "Replicas and Redis";

export function show(room, { signal, again }) {
  const processes = h("section", { class: "panel" }, waiting());
  const redis = h("section", { class: "panel" }, waiting());
  put(room, heading("Replicas and Redis"), processes, redis);
  live(
    ["replicas", "redis"],
    (told, watched) => (watched === "redis" ? renew(redis, servers(told)) : renew(processes, h("h2", {}, "Processes"), list(told.replicas))),
    (problem, watched) => renew(watched === "redis" ? redis : processes, failure(problem, again)),
    signal,
  );
}

function list(replicas) {
  if (!replicas.length) return empty("No process was seen lately", "Each says every five seconds that it is there; this one has not had time for it yet.");
  return table("Processes", COLUMNS, replicas);
}

const COLUMNS = [
  { label: "Name", cell: (one) => h("span", { class: "id" }, one.name), wide: true },
  { label: "Role", cell: (one) => one.role },
  { label: "Version", cell: (one) => one.version },
  { label: "In flight", cell: (one) => `${count(one.in_flight)} of ${count(one.max_in_flight)}`, number: true },
  { label: "Clients with work", cell: (one) => count(one.lanes), number: true },
  { label: "Up for", cell: (one) => seconds(one.uptime), number: true },
  { label: "Seen", cell: (one) => ago(one.seen_at), number: true },
];

const servers = ({ topology, nodes, unreachable }) => [
  h("h2", {}, `Redis (${topology})`),
  unreachable.length > 0 && h("p", { class: "why bad" }, `Out of reach: ${unreachable.join(", ")}`),
  nodes.map(node),
];

function node(one) {
  const replicas = one.replicas.map((other) => `${other.address} (${other.state}, ${count(other.lag)} s behind)`);
  const bound = one.memory_max_bytes ? `of ${bytes(one.memory_max_bytes)}` : "without a bound";
  return h(
    "article",
    {},
    h(
      "div",
      { class: "heading" },
      h("h3", { class: "id" }, one.address),
      badge(one.role, "calm"),
      !one.persistence_ok && badge("does not persist", "bad"),
      one.memory_policy !== "noeviction" && badge("may evict work", "bad"),
      one.loading && badge("loading", "warn"),
    ),
    pairs(
      ["Server", `${one.server} ${one.version}, up for ${seconds(one.uptime)}`],
      ["Latency", `${one.latency_ms} ms`],
      ["Load", `${count(one.commands_per_second)} commands a second, ${count(one.connections)} connections, ${count(one.keys)} keys`],
      ["Memory", `${bytes(one.memory_used_bytes)} ${bound}, at most ${bytes(one.memory_peak_bytes)}; ${one.memory_policy}, fragmentation ${one.fragmentation}`],
      ["Persistence", [one.persistence, one.last_save && [", last saved ", ago(one.last_save)]]],
      ["Replicas", replicas.length ? replicas.join(", ") : "none"],
    ),
  );
}
