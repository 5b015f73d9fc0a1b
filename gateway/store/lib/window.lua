-- The rate window. Sliding: admitted per whole second in the hash `window:{id}` with their sum `n`, the oldest second `o` and
-- the last one `l`. A second counts until 61 s after it began, so no 60 s ever hold more than the limit, and a burst is
-- free again after 60 to 61 s. Fixed: the calendar minute's counter.
local SPAN = 61

-- Returns used, the oldest second (0: none), the second this request is booked to, what that second has so far, whether it
-- is a new one, expired seconds to drop. Writes nothing.
local function read_sliding()
  local state = redis.call('HMGET', window_key, 'n', 'o', 'l', now_s)
  local used, oldest, last = tonumber(state[1]) or 0, tonumber(state[2]) or 0, tonumber(state[3]) or 0
  local second, here = now_s, tonumber(state[4]) or 0
  if last > now_s then -- a clock that was put back must not open a second window
    second, here = last, tonumber(redis.call('HGET', window_key, last)) or 0
  end
  local fresh = second ~= last
  if used == 0 or oldest > second - SPAN then return used, used > 0 and oldest or 0, second, here, fresh, nil end
  local expired, sum, first = {}, 0, 0
  local all = redis.call('HGETALL', window_key)
  for i = 1, #all, 2 do
    local at = tonumber(all[i])
    if at then
      if at <= second - SPAN then
        expired[#expired + 1] = all[i]
      else
        sum = sum + tonumber(all[i + 1])
        if first == 0 or at < first then first = at end
      end
    end
  end
  return sum, first, second, here, fresh, expired
end

local function minute_key(minute) return counter_head .. string.format('%d', minute) .. tag end

local function read_window(algorithm)
  if algorithm == 'fixed' then
    local minute = math.floor(now_s / 60)
    local used = tonumber(redis.call('GET', minute_key(minute))) or 0
    return { used = used, reset = used > 0 and (minute + 1) * 60 - now_s or 0, fixed = true }
  end
  local used, oldest, second, here, fresh, expired = read_sliding()
  local reset = used > 0 and math.max(1, oldest + SPAN - now_s) or 0
  return { used = used, reset = reset, oldest = oldest, second = second, here = here, fresh = fresh, expired = expired }
end

-- Whole seconds until `cost` fits under `limit`, if nobody else comes: rounded up, never 0.
local function wait_for(window, cost, limit)
  if window.fixed then return math.max(1, window.reset) end
  local seconds, counts = {}, {}
  local all = redis.call('HGETALL', window_key)
  for i = 1, #all, 2 do
    local at = tonumber(all[i])
    if at and at > window.second - SPAN then
      seconds[#seconds + 1] = at
      counts[at] = tonumber(all[i + 1])
    end
  end
  table.sort(seconds)
  local used = window.used
  for _, at in ipairs(seconds) do
    used = used - counts[at]
    if used + cost <= limit then return math.max(1, at + SPAN - now_s) end
  end
  return SPAN
end

local function count(window, cost)
  local minute = minute_key(math.floor(now_s / 60))
  if redis.call('INCRBY', minute, cost) == cost then redis.call('EXPIRE', minute, 120) end
  window.used = window.used + cost
  if window.fixed then
    window.reset = (math.floor(now_s / 60) + 1) * 60 - now_s
    return
  end
  if window.expired then
    redis.call('HDEL', window_key, unpack(window.expired))
    window.expired = nil
  end
  if window.oldest == 0 then window.oldest = window.second end
  window.here = window.here + cost
  redis.call('HSET', window_key, window.second, window.here, 'n', window.used, 'o', window.oldest, 'l', window.second)
  if window.fresh then -- later ones of the same second need not push it out again
    redis.call('EXPIRE', window_key, 120)
    window.fresh = false
  end
  window.reset = math.max(1, window.oldest + SPAN - now_s)
end
