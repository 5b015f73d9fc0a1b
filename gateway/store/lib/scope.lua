-- What every client-scoped script starts from: the client's keys, the names derived from data, Redis's clock.
-- KEYS 1-14 and ARGV 1-6 are laid out by store/keyspace.py, `Keyspace.scope`; a script's own follow after them.
local config_key, depth_key, queues_key, returned_key, scheduled_key, dead_key, ended_key,
      window_key, ready_key, due_key, leases_key, active_key, clients_key, totals_key = unpack(KEYS, 1, 14)
local tag, task_head, stream_head, counter_head, client = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
-- The policy all replicas share, as one packed array (see store/scripts.py, `pack_policy`).
local policy = cmsgpack.unpack(ARGV[6])
local RESULT_TTL, MAX_RESULTS, DEAD_TTL, MAX_DEAD, MAX_DELIVERIES, LEASE_MS, bell_head, PUBLISH, TIERS, WEIGHTS =
      unpack(policy, 1, 10)
local group = 'client:' .. client
local BELL = bell_head .. tag -- says 'r' and a client that is ready, 'd' for due earlier, 'c' and a client that changed

local function task_key(id) return task_head .. id .. tag end
local function stream_key(queue) return stream_head .. queue .. tag end

local clock = redis.call('TIME')
local now_s = tonumber(clock[1])
local now_us = tonumber(clock[2])
local now_ms = now_s * 1000 + math.floor(now_us / 1000)

-- Puts the client where dispatchers look; the doorbell rings only when it was not there.
local function mark_ready(quiet)
  if redis.call('ZADD', ready_key, 'NX', now_ms, client) == 1 and not quiet then
    redis.call(PUBLISH, BELL, 'r' .. client)
  end
end
