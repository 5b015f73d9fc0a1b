#!lua flags=allow-oom
-- @include scope
-- @include record
-- @include claim
-- A client with claimable work that nobody looks at would be stranded; this puts it back. It also drops the consumers of
-- processes that are gone (each costs every look at the group) and the streams of a client that has been idle.
-- KEYS: scope. ARGV: scope, idle ms after which streams and consumers go. Returns 1 where it repaired something.
local IDLE_MS = tonumber(ARGV[7])
local waiting = tonumber(redis.call('HGET', depth_key, 'n')) or 0
local queues, in_flight = read_queues()
for _, queue in ipairs(queues) do
  for _, row in ipairs(redis.call('XINFO', 'CONSUMERS', queue.key, group)) do
    local consumer = {}
    for i = 1, #row, 2 do consumer[row[i]] = row[i + 1] end
    -- Never with something pending: those entries would be gone from the pending list for good.
    if consumer['pending'] == 0 and consumer['idle'] > IDLE_MS then
      redis.call('XGROUP', 'DELCONSUMER', queue.key, group, consumer['name'])
    end
  end
end
if waiting <= 0 and in_flight == 0 then
  local since = tonumber(redis.call('ZSCORE', active_key, client)) or 0
  if since > 0 and now_ms - since > IDLE_MS then
    for _, queue in ipairs(queues) do
      if redis.call('XLEN', queue.key) == 0 then redis.call('DEL', queue.key) end
    end
    redis.call('DEL', queues_key, depth_key)
    if redis.call('EXISTS', dead_key) == 0 then redis.call('ZREM', active_key, client) end
  end
  return 0
end
if redis.call('ZSCORE', ready_key, client) or in_flight >= limit_now() then return 0 end
local found = redis.call('ZCARD', returned_key) > 0
for _, queue in ipairs(queues) do
  found = found or redis.call('XRANGE', queue.key, '(' .. queue.last, '+', 'COUNT', 1)[1] ~= nil
end
-- Waiting behind a call in flight is no stranding: its finish looks again.
if not found or in_flight > 0 then return 0 end
redis.call('HDEL', depth_key, 'full')
mark_ready()
return 1
