#!lua flags=allow-oom
-- @include scope
-- Adds or removes what signs a client's deliveries, and tells every replica. KEYS: scope.
-- ARGV: scope, the secrets' key, id ('' for all), secret ('' removes), how many there may be.
-- Returns when it was added (µs), how many were removed, or -1 where there are as many as there may be.
local key, id, secret = ARGV[7], ARGV[8], ARGV[9]
local changed
if secret ~= '' then
  if redis.call('HLEN', key) >= tonumber(ARGV[10]) then return -1 end
  changed = now_s * 1000000 + now_us
  redis.call('HSET', key, id, string.format('%d%06d', now_s, now_us) .. ' ' .. secret)
elseif id == '' then
  changed = redis.call('DEL', key)
else
  changed = redis.call('HDEL', key, id)
end
redis.call(PUBLISH, BELL, 'c' .. client)
return changed
