// The processes of the gateway, and the Redis they share.

import { get } from "../lib/api.js";
import { h, put, renew } from "../lib/dom.js";
import { ago, bytes, count, seconds } from "../lib/format.js";
import { live, repeat } from "../lib/live.js";
import { empty, failure, waiting } from "../parts/states.js";
import { pairs, table } from "../parts/table.js";
import { badge, heading } from "../parts/words.js";

const EVERY = 5;

export const title = () => "Replicas and Redis";

export function show(room, { signal, again }) {
  const processes = h("section", { class: "panel" }, waiting());
  const redis = h("section", { class: "panel" }, waiting());
  put(room, heading("Replicas and Redis"), processes, redis);
  live(["replicas"], (told) => renew(processes, h("h2", {}, "Processes"), list(told.replicas)), (problem) => put(processes, failure(problem, again)), signal);
  repeat(
    async () => {
      try {
        const told = await get("redis", {}, signal);
        if (!signal.aborted) renew(redis, h("h2", {}, `Redis (${told.topology})`), told.nodes.map(node));
      } catch (problem) {
        if (problem.name === "AbortError" || signal.aborted || problem.status === 401) return false;
        if (problem.status === 404) return redis.remove();
        put(redis, h("h2", {}, "Redis"), failure(problem, again));
      }
      return true;
    },
    EVERY,
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
  { label: "Up for", cell: (one) => seconds(one.uptime ?? (Date.now() - new Date(one.started_at)) / 1000), number: true },
  { label: "Seen", cell: (one) => ago(one.seen_at), number: true },
];

function node(one) {
  if (one.error) return h("article", {}, h("div", { class: "heading" }, h("h3", { class: "id" }, one.address), badge("out of reach", "bad")), h("p", {}, one.error));
  const { memory, persistence, replication } = one;
  const replicas = replication.replicas.map((other) => `${other.address} (${other.state}, ${count(other.lag)} s behind)`);
  return h(
    "article",
    {},
    h("div", { class: "heading" }, h("h3", { class: "id" }, one.address), badge(one.role, "calm"), memory.policy !== "noeviction" && badge("may evict work", "bad"), persistence.aof && !persistence.aof_ok && badge("AOF fails", "bad")),
    pairs(
      ["Server", `${one.product} ${one.version}, up for ${seconds(one.uptime)}`],
      ["Latency", `${one.latency_ms} ms`],
      ["Load", `${count(one.ops_per_sec)} commands a second, ${count(one.clients)} connections, ${count(one.keys)} keys`],
      ["Memory", `${bytes(memory.used)} of ${memory.max ? bytes(memory.max) : "no bound"}, at most ${bytes(memory.peak)}; ${memory.policy}, fragmentation ${memory.fragmentation}`],
      ["Persistence", [persistence.aof ? `AOF, ${persistence.aof_ok ? "written" : "not written"}` : "no AOF", "; last RDB ", ago(persistence.last_save), persistence.last_save_ok ? "" : " failed"]],
      ["Replicas", replicas.length ? replicas.join(", ") : replication.link_up === null ? "none" : `of a primary, link ${replication.link_up ? "up" : "down"}`],
    ),
  );
}
