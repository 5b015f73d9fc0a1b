// Ramps up to 50 virtual users that enqueue for ten clients; every answer has to be 201 or 429.
//
//   .venv/bin/k6 run --no-usage-report deploy/k6/load_test.js
//
// From the environment: GATEWAY_URL, ADMIN_API_KEY (sent as X-Admin-Key where set), TARGET_URL, VUS (50),
// RAMP (10s), DURATION (30s). Without a TARGET_URL every call fails at the name look-up: what is measured is the enqueue.

import http from "k6/http";
import { check, fail } from "k6";
import { Counter } from "k6/metrics";

const GATEWAY_URL = (__ENV.GATEWAY_URL || "http://127.0.0.1:8080").replace(/\/$/, "");
const TARGET_URL = __ENV.TARGET_URL || "http://target.invalid/";
const VUS = Number(__ENV.VUS || 50);
const RAMP = __ENV.RAMP || "10s";
const DURATION = __ENV.DURATION || "30s";
const JSON_HEADERS = { "Content-Type": "application/json" };
const ADMIN_HEADERS = __ENV.ADMIN_API_KEY
  ? Object.assign({ "X-Admin-Key": __ENV.ADMIN_API_KEY }, JSON_HEADERS)
  : JSON_HEADERS;

// Tiers on both sides of what the load asks for, so that both answers are seen.
const TIERS = ["free", "basic", "premium", "enterprise", "default"];
const CLIENTS = Array.from({ length: 10 }, (_, i) => ({ id: `k6-load-${i}`, tier: TIERS[i % TIERS.length] }));

const admitted = new Counter("enqueue_admitted");
const refused = new Counter("enqueue_refused");

export const options = {
  stages: [
    { duration: RAMP, target: VUS },
    { duration: DURATION, target: VUS },
    { duration: "1s", target: 0 },
  ],
  thresholds: {
    checks: ["rate==1"],
    http_req_failed: ["rate==0"],
    enqueue_admitted: ["count>0"],
  },
};

http.setResponseCallback(http.expectedStatuses(200, 201, 204, 429));

export function setup() {
  for (const client of CLIENTS) {
    const answer = http.put(
      `${GATEWAY_URL}/admin/clients/set`,
      JSON.stringify({ client_id: client.id, tier: client.tier }),
      { headers: ADMIN_HEADERS },
    );
    if (answer.status !== 200) {
      fail(`could not set ${client.id}: ${answer.status} ${answer.body || answer.error}`);
    }
  }
}

export default function () {
  const client = CLIENTS[(__VU + __ITER) % CLIENTS.length];
  const answer = http.post(
    `${GATEWAY_URL}/v1/enqueue`,
    JSON.stringify({
      client_id: client.id,
      max_retry: 0,
      task: { url: TARGET_URL, method: "POST", body: JSON.stringify({ vu: __VU, iteration: __ITER }) },
    }),
    { headers: JSON_HEADERS },
  );
  check(answer, { "answer is 201 or 429": (r) => r.status === 201 || r.status === 429 });
  if (answer.status === 201) admitted.add(1);
  if (answer.status === 429) refused.add(1);
}

export function teardown() {
  for (const client of CLIENTS) {
    http.del(`${GATEWAY_URL}/admin/clients/delete?client_id=${client.id}&cancel_tasks=true`, null, {
      headers: ADMIN_HEADERS,
    });
  }
}
