-- Keeps the newest `most` of an index of ended tasks and returns how many those are; at most 100 go in one call, so that no
-- call is long.
local function trim(key, most, ttl)
  redis.call('ZREMRANGEBYSCORE', key, '-inf', now_ms - ttl * 1000)
  local kept = redis.call('ZCARD', key)
  if kept > most then
    local gone = redis.call('ZPOPMIN', key, math.min(kept - most, 100))
    for i = 1, #gone, 2 do redis.call('DEL', task_key(gone[i])) end
    kept = kept - #gone / 2
  end
  redis.call('EXPIRE', key, ttl)
  return kept
end
