-- Claiming: the only code that starts a task. In flight is the sum of the pending counts of the client's streams; an entry
-- starts only while that is below its own bound (its override's, else the client's limit). Returned entries go first, in
-- their old order; queues share by weight; within a queue nothing overtakes.
local MOST_BURIED = 50 -- expired tasks buried in one call

local function limit_now()
  local text = redis.call('GET', config_key)
  local ok, config = pcall(cjson.decode, text or '')
  if not ok or type(config) ~= 'table' then return cjson.decode(TIERS)['default'] end
  local own = type(config['rate_limit']) == 'table' and tonumber(config['rate_limit']['max_concurrent'])
  if own and config['source'] ~= 'tier' then return own end
  local tiers = cjson.decode(TIERS)
  return type(config['tier']) == 'string' and tiers[config['tier']] or own or tiers['default']
end

-- The client's streams: {name, key, pending, last (delivered id), pass}; their pending in all; the virtual time they have
-- come to; and whether a queue is paused.
local function read_queues()
  local list, in_flight, paused = {}, 0, {}
  local stored = redis.call('HGETALL', queues_key)
  local virtual = 0
  for i = 1, #stored, 2 do
    if stored[i] == '' then
      virtual = tonumber(stored[i + 1])
    elseif string.sub(stored[i], 1, 1) == '!' then -- see pause.lua
      paused[string.sub(stored[i], 2)] = true
    else
      local key = stream_key(stored[i])
      local groups = redis.pcall('XINFO', 'GROUPS', key)
      if not groups.err then
        if #groups == 0 then -- the stream was deleted behind our back and written again
          redis.call('XGROUP', 'CREATE', key, group, '0')
          groups = redis.call('XINFO', 'GROUPS', key)
        end
        local info = {}
        for j = 1, #groups[1], 2 do info[groups[1][j]] = groups[1][j + 1] end
        in_flight = in_flight + info['pending']
        list[#list + 1] = { name = stored[i], key = key, pending = info['pending'],
                            last = info['last-delivered-id'], pass = tonumber(stored[i + 1]) or 0 }
      elseif not string.find(groups.err, 'no such key', 1, true) then
        error(groups)
      end
    end
  end
  return list, in_flight, virtual, function(queue) return paused[''] or paused[queue] or false end
end

local function expired(record)
  return record[EXPIRES] > 0 and record[EXPIRES] <= now_ms and record[ATTEMPTS] + record[CRASHES] == 0
end

-- Returns {limit, in_flight, more, id, entry, fence, packed, …}; takes the client off `ready` or leaves it there, to match.
local function claim(consumer, want)
  local limit = limit_now()
  local queues, in_flight, virtual, is_paused = read_queues()
  local out, claimed, buried = { 0, 0, 0 }, 0, 0
  local more, blocked = false, {}

  local function fits(record)
    local bound = record[BOUND] > 0 and record[BOUND] or limit
    return in_flight < bound and not is_paused(record[QUEUE])
  end
  local function started(id, record, packed, entry, fence)
    claimed = claimed + 1
    in_flight = in_flight + 1
    out[#out + 1] = id
    out[#out + 1] = entry
    out[#out + 1] = fence
    out[#out + 1] = packed
  end

  -- Entries taken back from a dead or draining dispatcher: still in the stream, no longer pending.
  local returned = redis.call('ZRANGE', returned_key, 0, want + 15)
  for i, id in ipairs(returned) do
    local record, packed = load_record(id)
    if not record or record[STATE] ~= IN_STREAM then
      redis.call('ZREM', returned_key, id)
    elseif expired(record) then
      drop_entry(record)
      redis.call('ZREM', returned_key, id)
      bury(id, record, 'expired')
    elseif not blocked[record[QUEUE]] then
      if not fits(record) then
        blocked[record[QUEUE]] = true
      elseif claimed >= want then
        more = true
        break
      else
        local fence = record[FENCE] + 1
        redis.call('ZREM', returned_key, id)
        local got = redis.call('XCLAIM', stream_key(record[QUEUE]), group, consumer, 0, record[ENTRY],
          'RETRYCOUNT', fence, 'FORCE', 'JUSTID')
        if got[1] then started(id, record, packed, record[ENTRY], fence) end
      end
    end
    if i == want + 16 and claimed < want and not next(blocked) then more = true end
  end

  -- Heads of the queues that have something to start, cheapest virtual time first (stride scheduling).
  local weights
  local function next_head(queue)
    while true do
      local found = redis.call('XRANGE', queue.key, '(' .. queue.last, '+', 'COUNT', 1)[1]
      if not found then return nil end
      local id = found[2][2]
      local record, packed = load_record(id)
      if record and not expired(record) then return { id = id, record = record, packed = packed, entry = found[1] } end
      if buried >= MOST_BURIED then more = true return nil end
      buried = buried + 1
      redis.call('XDEL', queue.key, found[1])
      if record then bury(id, record, 'expired') end
    end
  end
  local heads = {}
  for _, queue in ipairs(queues) do
    if not blocked[queue.name] then
      queue.head = next_head(queue)
      if queue.head then heads[#heads + 1] = queue end
    end
  end
  local contended = #heads > 1
  while #heads > 0 do
    local best
    for i, queue in ipairs(heads) do
      queue.at = math.max(queue.pass, virtual)
      if not best or queue.at < heads[best].at then best = i end
    end
    local queue = heads[best]
    local head = queue.head
    if not fits(head.record) then
      table.remove(heads, best)
    elseif claimed >= want then
      more = true
      break
    else
      redis.call('XREADGROUP', 'GROUP', group, consumer, 'COUNT', 1, 'STREAMS', queue.key, '>')
      started(head.id, head.record, head.packed, head.entry, 1)
      queue.last = head.entry
      if contended then
        weights = weights or cjson.decode(WEIGHTS)
        virtual = queue.at
        queue.pass = queue.at + 1 / (weights[queue.name] or 1)
        queue.moved = true
      end
      if claimed >= want and in_flight < limit then
        -- That something waits is all there is to know; whether an override holds it back, the next claim finds out.
        more = more or #heads > 1 or #redis.call('XRANGE', queue.key, '(' .. queue.last, '+', 'COUNT', 1) > 0
        break
      end
      queue.head = next_head(queue)
      if not queue.head then table.remove(heads, best) end
    end
  end
  if contended then
    for _, queue in ipairs(queues) do
      if queue.moved then redis.call('HSET', queues_key, queue.name, string.format('%.6f', queue.pass)) end
    end
    redis.call('HSET', queues_key, '', string.format('%.6f', virtual))
  end

  if more then redis.call('ZADD', ready_key, now_ms, client) else redis.call('ZREM', ready_key, client) end
  -- At its limit the client needs no waking by admit: whatever frees a slot looks again, and so does a resume.
  if in_flight >= limit or is_paused('') then
    redis.call('HSETNX', depth_key, 'full', now_ms) -- since when, for who asks why
  else
    redis.call('HDEL', depth_key, 'full')
  end
  if claimed > 0 then redis.call('ZADD', leases_key, 'NX', now_ms + LEASE_MS, client) end
  out[1], out[2], out[3] = limit, in_flight, more and 1 or 0
  return out
end
