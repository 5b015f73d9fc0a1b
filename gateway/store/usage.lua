#!lua flags=no-writes
-- @include scope
-- @include window
-- A client's figures of this moment; consumes nothing. KEYS: scope. ARGV: scope, algorithm.
-- Returns {Redis's clock in µs, used, reset, in flight, waiting to start, scheduled, dead, then the paused queues ('': all)}.
local window = read_window(ARGV[7])
local in_flight, paused = 0, {}
for _, queue in ipairs(redis.call('HKEYS', queues_key)) do
  local key = stream_key(queue)
  if string.sub(queue, 1, 1) == '!' then
    paused[#paused + 1] = string.sub(queue, 2)
  elseif queue ~= '' and redis.call('EXISTS', key) == 1 then
    local groups = redis.call('XINFO', 'GROUPS', key)
    if #groups > 0 then
      for j = 1, #groups[1], 2 do
        if groups[1][j] == 'pending' then in_flight = in_flight + groups[1][j + 1] end
      end
    end
  end
end
local all = tonumber(redis.call('HGET', depth_key, 'n')) or 0
local scheduled = redis.call('ZCARD', scheduled_key)
local dead = redis.call('ZCOUNT', dead_key, now_ms - DEAD_TTL * 1000, '+inf')
return { string.format('%d%06d', now_s, now_us), window.used, window.reset, in_flight,
         math.max(0, all - scheduled - in_flight), scheduled, dead, unpack(paused) }
