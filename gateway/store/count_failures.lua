#!lua
-- Adds failed calls of one minute by what failed. KEYS: the hash of the hour. ARGV: then for each count a field (`minute kind name`), the
-- one it falls back to, and the count. A hash that is full takes no new names, so that targets can't grow it. Returns nothing.
local MOST, HOURS_3 = 5000, 10800
for i = 1, #ARGV, 3 do
  local field = ARGV[i]
  if redis.call('HLEN', KEYS[1]) >= MOST and redis.call('HEXISTS', KEYS[1], field) == 0 then field = ARGV[i + 1] end
  redis.call('HINCRBY', KEYS[1], field, ARGV[i + 2])
end
redis.call('EXPIRE', KEYS[1], HOURS_3)
