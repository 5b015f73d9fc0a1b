-- What every script of clients starts from: the names of keys, the policy, Redis's clock.
-- KEYS 1-6 and ARGV 1-6 are laid out by store/keyspace.py, `Keyspace.scope`; a script's own follow after them. A client's keys
-- are named here; a script of one client begins in its scope, one of many calls `enter` for each.
local ready_key, due_key, leases_key, active_key, clients_key, totals_key = unpack(KEYS, 1, 6)
local tag, prefix, bell_head, PUBLISH = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
-- The policy all replicas share, as one packed array (see store/scripts.py, `pack_policy`).
local policy = cmsgpack.unpack(ARGV[6])
local RESULT_TTL, MAX_RESULTS, DEAD_TTL, MAX_DEAD, MAX_DELIVERIES, LEASE_MS, TIERS, WEIGHTS = unpack(policy, 1, 8)
local BELL = bell_head .. tag -- says 'r' and a client that is ready, 'd' for due earlier, 'c' and a client that changed

local client, group, stream_head, config_key, counts_key, queues_key, returned_key, scheduled_key, dead_key, ended_key
local function enter(name)
  local tail = name .. tag
  client, group, stream_head = name, 'client:' .. name, prefix .. 'stream:' .. name .. ':'
  config_key, counts_key, queues_key = prefix .. 'client_config:' .. tail, prefix .. 'counts:' .. tail, prefix .. 'queues:' .. tail
  returned_key, scheduled_key = prefix .. 'returned:' .. tail, prefix .. 'scheduled:' .. tail
  dead_key, ended_key = prefix .. 'dead:' .. tail, prefix .. 'ended:' .. tail
end
if ARGV[5] ~= '' then enter(ARGV[5]) end

local function task_key(id) return prefix .. 'task:' .. id .. tag end
local function stream_key(queue) return stream_head .. queue .. tag end

local clock = redis.call('TIME')
local now_s = tonumber(clock[1])
local now_us = tonumber(clock[2])
local now_ms = now_s * 1000 + math.floor(now_us / 1000)

-- Puts the client where dispatchers look; the doorbell rings only when it was not there. `ready` among the counts says the
-- same, so that who has them read need not ask.
local function mark_ready(quiet)
  if redis.call('ZADD', ready_key, 'NX', now_ms, client) == 1 then
    redis.call('HSET', counts_key, 'ready', 1)
    if not quiet then redis.call(PUBLISH, BELL, 'r' .. client) end
  end
end

-- Does it for one client of many: what is wrong with the keys of one must not be the others' affair. Returns nothing, or the error.
local function guarded(do_it)
  local ok, problem = pcall(do_it)
  if ok then return nil end
  return type(problem) == 'table' and problem.err or tostring(problem)
end

-- Something changed that may let waiting work start: the next admission has to look again, and so do dispatchers.
local function look_again()
  redis.call('HDEL', counts_key, 'full')
  mark_ready()
end
