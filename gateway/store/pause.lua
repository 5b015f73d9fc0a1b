#!lua flags=allow-oom
-- @include scope
-- Pauses or resumes one client, or one of its queues: a field of `queues` that no queue can be named like, which every claim
-- reads anyway, with the time since when. What runs goes on. KEYS: scope. ARGV: scope, queue ('' for all), 1 to pause.
-- Returns 1 where that changed anything.
local field = '!' .. ARGV[7]
if ARGV[8] == '1' then return redis.call('HSETNX', queues_key(), field, now_ms) end
local gone = redis.call('HDEL', queues_key(), field)
redis.call('HDEL', counts_key, 'full')
if (tonumber(redis.call('HGET', counts_key, 'tasks')) or 0) > 0 then mark_ready() end
return gone
