-- The rate window. Sliding: admitted per whole second in the hash `counts:{id}`, with their sum `n`, the oldest second `o` and
-- the last one `l`. A second counts until 61 s after it began, so no 60 s ever hold more than the limit, and a burst is
-- free again after 60 to 61 s. Fixed: the calendar minute's counter.
local SPAN = 61
local MINUTE = string.format('%d', math.floor(now_s / 60))

local function minute_key() return prefix .. 'ratelimit:' .. client .. ':' .. MINUTE .. tag end

-- `n`, `o`, `l` and the present second's field are the values of those fields. Returns used, the oldest second (0: none), the
-- second this request is booked to, what that second has so far, expired seconds to drop. Writes nothing.
local function read_sliding(n, o, l, present)
  local used, oldest, last = tonumber(n) or 0, tonumber(o) or 0, tonumber(l) or 0
  local second, here = now_s, tonumber(present) or 0
  if last > now_s then -- a clock that was put back must not open a second window
    second, here = last, tonumber(redis.call('HGET', counts_key, last)) or 0
  end
  if used == 0 or oldest > second - SPAN then return used, used > 0 and oldest or 0, second, here, nil end
  local expired, sum, first = {}, 0, 0
  local all = redis.call('HGETALL', counts_key)
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
  return sum, first, second, here, expired
end

local function read_window(algorithm, n, o, l, present)
  if algorithm == 'fixed' then
    local used = tonumber(redis.call('GET', minute_key())) or 0
    return { used = used, reset = used > 0 and (math.floor(now_s / 60) + 1) * 60 - now_s or 0, fixed = true }
  end
  local used, oldest, second, here, expired = read_sliding(n, o, l, present)
  local reset = used > 0 and math.max(1, oldest + SPAN - now_s) or 0
  return {
    used = used, reset = reset, oldest = oldest, second = second, here = here, expired = expired,
    told_oldest = tonumber(o), told_last = tonumber(l),
  }
end

-- Whole seconds until `cost` fits under `limit`, if nobody else comes: rounded up, never 0.
local function wait_for(window, cost, limit)
  if window.fixed then return math.max(1, window.reset) end
  local seconds, counts = {}, {}
  local all = redis.call('HGETALL', counts_key)
  for i = 1, #all, 2 do
    local at = tonumber(all[i])
    if at and at > window.second - SPAN then
      seconds[#seconds + 1] = at
      counts[at] = tonumber(all[i + 1])
    end
  end
  -- What this script has counted and not written yet.
  if window.added then
    if not counts[window.second] then seconds[#seconds + 1] = window.second end
    counts[window.second] = window.here
  end
  table.sort(seconds)
  local used = window.used
  for _, at in ipairs(seconds) do
    used = used - counts[at]
    if used + cost <= limit then return math.max(1, at + SPAN - now_s) end
  end
  return SPAN
end

-- Counts in memory; `write_window` stores it.
local function count(window, cost)
  window.used, window.added = window.used + cost, (window.added or 0) + cost
  if window.fixed then
    window.reset = (math.floor(now_s / 60) + 1) * 60 - now_s
    return
  end
  if window.oldest == 0 then window.oldest = window.second end
  window.here = window.here + cost
  window.reset = math.max(1, window.oldest + SPAN - now_s)
end

-- Stores what was counted, together with `fields` of the counts (name, value, …).
local function write_window(window, fields)
  if not window.fixed then
    if window.expired then redis.call('HDEL', counts_key, unpack(window.expired)) end
    local n = #fields
    fields[n + 1], fields[n + 2], fields[n + 3], fields[n + 4] = 'n', window.used, window.second, window.here
    -- These two seldom change.
    if window.oldest ~= window.told_oldest then fields[#fields + 1], fields[#fields + 2] = 'o', window.oldest end
    if window.second ~= window.told_last then fields[#fields + 1], fields[#fields + 2] = 'l', window.second end
  end
  redis.call('HSET', counts_key, unpack(fields))
  local minute = minute_key()
  if redis.call('INCRBY', minute, window.added) == window.added then redis.call('EXPIRE', minute, 120) end
end
