#!lua flags=no-writes
-- @include scope
-- @include record
-- @include window
-- A client's figures of this moment; consumes nothing. KEYS: scope. ARGV: scope, algorithm.
-- Returns {Redis's clock in µs, used, reset, in flight, waiting to start, scheduled, dead, since when the oldest that is due waits (ms; 0:
-- none waits), that one's id, then the paused queues ('': all)}.
local counts = redis.call('HMGET', counts_key, 'n', 'o', 'l', now_s, 'tasks')
local window = read_window(ARGV[7], unpack(counts, 1, 4))
local in_flight, oldest, oldest_id, paused = 0, 0, '', {}
local function waits_since(ms, id)
  if oldest == 0 or ms < oldest then oldest, oldest_id = ms, id end
end
local returned = redis.call('ZRANGE', returned_key(), 0, 0, 'WITHSCORES')
if returned[2] then waits_since(math.floor(tonumber(returned[2]) / 1000), returned[1]) end
for _, queue in ipairs(redis.call('HKEYS', queues_key())) do
  local key = stream_key(queue)
  if string.sub(queue, 1, 1) == '!' then
    paused[#paused + 1] = string.sub(queue, 2)
  elseif queue ~= '' and redis.call('EXISTS', key) == 1 then
    local groups = redis.call('XINFO', 'GROUPS', key)
    if #groups > 0 then
      local seen = {}
      for j = 1, #groups[1], 2 do seen[groups[1][j]] = groups[1][j + 1] end
      in_flight = in_flight + seen['pending']
      local next_one = redis.call('XRANGE', key, '(' .. seen['last-delivered-id'], '+', 'COUNT', 1)[1]
      if next_one then waits_since(tonumber(string.match(next_one[1], '^%d+')), id_in(next_one)) end
    end
  end
end
local all = tonumber(counts[5]) or 0
local scheduled = redis.call('ZCARD', scheduled_key())
local dead = redis.call('ZCOUNT', dead_key(), now_ms - DEAD_TTL * 1000, '+inf')
return { string.format('%d%06d', now_s, now_us), window.used, window.reset, in_flight,
         math.max(0, all - scheduled - in_flight), scheduled, dead, oldest, oldest_id, unpack(paused) }
