-- What every script of clients starts from: the names of keys, the policy, Redis's clock.
-- KEYS 1-6 and ARGV 1-6 are laid out by store/keyspace.py, `Keyspace.scope`; a script's own follow after them. A client's keys
-- are named here; a script of one client begins in its scope, one of many calls `enter` for each.

-- Garbage that piles up pushes clients' keys out of the processor's caches: Lua is to collect once its memory has grown by a
-- fifth, rather than to the double.
collectgarbage('setpause', 120)

local ready_key, due_key, leases_key, active_key, clients_key, totals_key = unpack(KEYS, 1, 6)
local tag, prefix, bell_head, PUBLISH = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
-- The policy all replicas share, as one packed array (see store/scripts.py, `pack_policy`).
local policy = cmsgpack.unpack(ARGV[6])
local RESULT_TTL, MAX_RESULTS, DEAD_TTL, MAX_DEAD, MAX_DELIVERIES, LEASE_MS, TIERS, WEIGHTS = unpack(policy, 1, 8)
local BELL = bell_head .. tag -- says 'r' and a client that is ready, 'd' for due earlier, 'c' and a client that changed

local client, group, stream_head, counts_key
local function enter(name)
  client, group, stream_head = name, 'client:' .. name, prefix .. 'stream:' .. name .. ':'
  counts_key = prefix .. 'counts:' .. name .. tag
end
-- Made when they are asked for: a script for many clients would make most of them in vain.
local function config_key() return prefix .. 'client_config:' .. client .. tag end
local function queues_key() return prefix .. 'queues:' .. client .. tag end
local function returned_key() return prefix .. 'returned:' .. client .. tag end
local function scheduled_key() return prefix .. 'scheduled:' .. client .. tag end
local function dead_key() return prefix .. 'dead:' .. client .. tag end
local function ended_key() return prefix .. 'ended:' .. client .. tag end
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

-- What went wrong for one client of many, from what `pcall` caught: the keys of one must not be the others' affair.
local function worded(problem) return type(problem) == 'table' and problem.err or tostring(problem) end

-- Something changed that may let waiting work start: the next admission has to look again, and so do dispatchers.
local function look_again()
  redis.call('HDEL', counts_key, 'full')
  mark_ready()
end
