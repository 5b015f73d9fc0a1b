#!lua
-- Adds what clients of one partition did in one minute to what is kept of that minute, of its hour and in the rankings. The client ''
-- is all of them together and in no ranking. KEYS: the rankings (requests refused and calls failed of the hour, minutes with a
-- refusal of the day), then for each client its minutes of the hour and its hours of the day; all declared, so on a Cluster no
-- slot that moves tears them apart. ARGV: minute of the hour, hour of the day, then for each client its id and its tally as
-- metrics/tally.py packs it. Returns nothing. Not safe to repeat.
local REFUSED, FAILED, REFUSED_MINUTES, PAIRS = 2, 4, 5, 6
local HOUR, DAY = 3600, 86400
local minute, hour = ARGV[1], ARGV[2]

-- Returns how many were refused in that stretch before.
local function add(key, field, tally, seconds)
  local packed = redis.call('HGET', key, field)
  local sum = packed and cmsgpack.unpack(packed) or { 0, 0, 0, 0, 0 }
  local refused = sum[REFUSED]
  for i = 1, PAIRS - 1 do sum[i] = sum[i] + tally[i] end
  for i = PAIRS, #tally, 2 do
    local at = PAIRS
    while sum[at] and sum[at] ~= tally[i] do at = at + 2 end
    sum[at], sum[at + 1] = tally[i], (sum[at + 1] or 0) + tally[i + 1]
  end
  redis.call('HSET', key, field, cmsgpack.pack(sum))
  if not packed then redis.call('EXPIRE', key, seconds) end
  return refused
end

local ranked = {}
local function rank(key, by, client)
  if by == 0 or client == '' then return end
  redis.call('ZINCRBY', key, by, client)
  ranked[key] = true
end

for i = 3, #ARGV, 2 do
  local client, tally = ARGV[i], cmsgpack.unpack(ARGV[i + 1])
  if add(KEYS[i + 1], minute, tally, DAY + 2 * HOUR) == 0 and tally[REFUSED] > 0 then tally[REFUSED_MINUTES] = 1 end
  add(KEYS[i + 2], hour, tally, 91 * DAY)
  rank(KEYS[1], tally[REFUSED], client)
  rank(KEYS[2], tally[FAILED], client)
  rank(KEYS[3], tally[REFUSED_MINUTES], client)
end
for key in pairs(ranked) do redis.call('EXPIRE', key, key == KEYS[3] and 2 * DAY + 2 * HOUR or 3 * HOUR) end
