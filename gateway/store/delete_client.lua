#!lua flags=allow-oom
-- @include scope
-- Removes a client's settings; its tasks go on under the default tier's limits, and a pause is over. KEYS, ARGV: scope.
-- Returns 1 where there was one.
local there = redis.call('DEL', config_key())
redis.call('ZREM', clients_key, client)
redis.call(PUBLISH, BELL, 'c' .. client)
for _, field in ipairs(redis.call('HKEYS', queues_key())) do
  if string.sub(field, 1, 1) == '!' then redis.call('HDEL', queues_key(), field) end
end
redis.call('HDEL', counts_key, 'full')
if redis.call('EXISTS', queues_key()) == 1 then mark_ready() end
return there
