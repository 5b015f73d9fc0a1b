-- Claiming: the only code that starts a task. In flight is the sum of the pending counts of the client's streams; an entry
-- starts only while that is below its own bound (its override's, else the client's limit). Returned entries go first, in
-- their old order; queues share by weight; within a queue nothing overtakes.
local MOST_BURIED = 50 -- expired tasks buried in one call
local MOST_SPARED = 50 -- tasks on their last chance that are passed over in one call
local READY_MS = 1000 -- a client that stays ready is moved to the end of the line this often

local tiers
local function tier_limit(name)
  tiers = tiers or cjson.decode(TIERS)
  return tiers[name]
end

local function limit_now()
  local text = redis.call('GET', config_key())
  local ok, config = pcall(cjson.decode, text or '')
  if not ok or type(config) ~= 'table' then return tier_limit('default') end
  local own = type(config['rate_limit']) == 'table' and tonumber(config['rate_limit']['max_concurrent'])
  if own and config['source'] ~= 'tier' then return own end
  return type(config['tier']) == 'string' and tier_limit(config['tier']) or own or tier_limit('default')
end

-- The client's streams: {name, key, pending, last (delivered id), pass}; their pending in all; the virtual time they have
-- come to; and whether a queue is paused.
local function read_queues()
  local list, in_flight, paused = {}, 0, {}
  local stored = redis.call('HGETALL', queues_key())
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

-- What a claim returns: {limit, in flight, more 0/1, then queue, entry, fence, id, task for each}. `id` is '' where the task is
-- its entry, whose value then is the task.
local function starting(limit, in_flight, chances)
  local claim = { limit = limit, in_flight = in_flight, chances = chances, claimed = 0, more = false, out = { 0, 0, 0 } }
  function claim.start(queue, entry, fence, id, packed)
    claim.claimed, claim.in_flight = claim.claimed + 1, claim.in_flight + 1
    local out, at = claim.out, #claim.out
    out[at + 1], out[at + 2], out[at + 3], out[at + 4], out[at + 5] = queue, entry, fence, id, packed
  end
  return claim
end

-- Where all of the client's tasks wait in one stream and are alike: whatever is next may start, so nothing has to be looked at.
local function claim_plainly(claim, queue, consumer, want)
  local room = math.min(want, claim.limit - claim.in_flight)
  if room <= 0 then return end
  local got = redis.call('XREADGROUP', 'GROUP', group, consumer, 'COUNT', room, 'STREAMS', queue.key, '>')
  for _, found in ipairs(got and got[1][2] or {}) do
    local value = found[2][2]
    if found[2][1] == 'r' then
      claim.start(queue.name, found[1], 1, '', value)
    else
      local packed = redis.pcall('GET', task_key(value))
      if packed then -- an error stands in the place of a record that is of another type
        claim.start(queue.name, found[1], 1, value, packed.err or packed)
      else -- its record was deleted by hand: a ghost would hold its slot for ever
        redis.call('XACK', queue.key, group, found[1])
        redis.call('XDEL', queue.key, found[1])
      end
    end
  end
  -- As many as were asked for: there may be more, which the next claim finds out.
  claim.more = claim.claimed >= want and claim.in_flight < claim.limit
end

-- Everything that may hold a task back is looked at, one by one. Returns whether nothing odd waits any more, and whether nothing
-- that was taken back does. Made by the first claim that needs it: its functions cost more to make than a plain claim does.
local claim_one_by_one
local function one_by_one()
-- @include record
  local function expired(record)
    return record[EXPIRES] > 0 and record[EXPIRES] <= now_ms and record[ATTEMPTS] + record[CRASHES] == 0
  end

  return function(claim, queues, virtual, is_paused, consumer, want)
    local blocked, buried = {}, 0
    local function fits(queue, bound)
      return claim.in_flight < (bound > 0 and bound or claim.limit) and not is_paused(queue)
    end

    -- A task whose dispatchers died under it so often that once more would bury it. What kills a process takes the other calls open
    -- there along, each time: started apart from each other, only the one that does it is buried in the end.
    local function last_chance(record)
      return record[CRASHES] > 1 and record[CRASHES] >= MAX_DELIVERIES - 1
    end

    -- Entries taken back from a dead or draining dispatcher: still in the stream, no longer pending.
    local returned = redis.call('ZRANGE', returned_key(), 0, want + 15 + MOST_SPARED)
    for i, id in ipairs(returned) do
      local record, packed = load_record(id)
      if not record or record[STATE] ~= IN_STREAM then
        redis.call('ZREM', returned_key(), id)
      elseif expired(record) then
        drop_entry(record[QUEUE], record[ENTRY])
        redis.call('ZREM', returned_key(), id)
        bury(id, record, 'expired')
      elseif not blocked[record[QUEUE]] then
        if not fits(record[QUEUE], record[BOUND]) then
          blocked[record[QUEUE]] = true
        elseif claim.claimed >= want then
          claim.more = true
          break
        elseif last_chance(record) and claim.chances == 0 then
          claim.more = true
        else
          if last_chance(record) then claim.chances = claim.chances - 1 end
          local fence = record[FENCE] + 1
          redis.call('ZREM', returned_key(), id)
          local got = redis.call('XCLAIM', stream_key(record[QUEUE]), group, consumer, 0, record[ENTRY],
            'RETRYCOUNT', fence, 'FORCE', 'JUSTID')
          if got[1] then claim.start(record[QUEUE], record[ENTRY], fence, id, packed) end
        end
      end
      if i == want + 16 + MOST_SPARED and claim.claimed < want and not next(blocked) then claim.more = true end
    end

    -- Heads of the queues that have something to start, cheapest virtual time first (stride scheduling).
    local weights
    local odd = false -- something waits that has a bound or an expiry of its own
    local function next_head(queue)
      while true do
        local found = redis.call('XRANGE', queue.key, '(' .. queue.last, '+', 'COUNT', 1)[1]
        if not found then return nil end
        local value = found[2][2]
        if found[2][1] == 'r' then return { id = '', packed = value, bound = 0, entry = found[1] } end
        local record, packed = load_record(value, queue.name, found[1])
        odd = odd or (record and (record[BOUND] > 0 or record[EXPIRES] > 0))
        if record and not expired(record) then
          return { id = value, packed = packed, bound = record[BOUND], entry = found[1] }
        end
        if buried >= MOST_BURIED then claim.more = true return nil end
        buried = buried + 1
        redis.call('XDEL', queue.key, found[1])
        if record then bury(value, record, 'expired') end
      end
    end
    local heads = {}
    for _, queue in ipairs(queues) do
      if not blocked[queue.name] then
        queue.head = next_head(queue)
        if queue.head then heads[#heads + 1] = queue end
      end
    end
    local drained = #heads == 0 and not next(blocked)
    local contended = #heads > 1
    while #heads > 0 do
      local best
      for i, queue in ipairs(heads) do
        queue.at = math.max(queue.pass, virtual)
        if not best or queue.at < heads[best].at then best = i end
      end
      local queue = heads[best]
      local head = queue.head
      if not fits(queue.name, head.bound) then
        table.remove(heads, best)
      elseif claim.claimed >= want then
        claim.more = true
        break
      else
        redis.call('XREADGROUP', 'GROUP', group, consumer, 'COUNT', 1, 'STREAMS', queue.key, '>')
        claim.start(queue.name, head.entry, 1, head.id, head.packed)
        queue.last = head.entry
        if contended then
          weights = weights or cjson.decode(WEIGHTS)
          virtual = queue.at
          queue.pass = queue.at + 1 / (weights[queue.name] or 1)
          queue.moved = true
        end
        if claim.claimed >= want and claim.in_flight < claim.limit then
          -- That something waits is all there is to know; whether an override holds it back, the next claim finds out.
          claim.more = claim.more or #heads > 1 or #redis.call('XRANGE', queue.key, '(' .. queue.last, '+', 'COUNT', 1) > 0
          break
        end
        queue.head = next_head(queue)
        if not queue.head then table.remove(heads, best) end
      end
    end
    if contended then
      for _, queue in ipairs(queues) do
        if queue.moved then redis.call('HSET', queues_key(), queue.name, string.format('%.6f', queue.pass)) end
      end
      redis.call('HSET', queues_key(), '', string.format('%.6f', virtual))
    end
    return drained and not odd, #returned == 0
  end
end

-- Returns what `starting` describes; takes the client off `ready` or leaves it there, to match. `counts` are its `odd`,
-- `returned`, `ready`, `leased` and `full`, where they have been read already. `chances`: how many tasks on their last chance may
-- start, none by default.
local function claim(consumer, want, counts, chances)
  local odd, returned, ready, leased, full =
    unpack(counts or redis.call('HMGET', counts_key, 'odd', 'returned', 'ready', 'leased', 'full'), 1, 5)
  local queues, in_flight, virtual, is_paused = read_queues()
  local claim = starting(limit_now(), in_flight, chances or 0)
  if #queues == 1 and not odd and not returned and not is_paused(queues[1].name) then
    claim_plainly(claim, queues[1], consumer, want)
  else
    claim_one_by_one = claim_one_by_one or one_by_one()
    local none_odd, none_returned = claim_one_by_one(claim, queues, virtual, is_paused, consumer, want)
    if odd and none_odd then redis.call('HDEL', counts_key, 'odd') end
    if returned and none_returned then redis.call('HDEL', counts_key, 'returned') end
  end

  local changed = {}
  local function note(field, value)
    changed[#changed + 1] = field
    changed[#changed + 1] = value
  end
  if claim.more then
    if not ready or now_ms - tonumber(ready) >= READY_MS then
      redis.call('ZADD', ready_key, now_ms, client)
      note('ready', now_ms)
    end
  elseif ready or not counts then
    redis.call('ZREM', ready_key, client)
    redis.call('HDEL', counts_key, 'ready')
  end
  if claim.claimed > 0 and not leased then
    redis.call('ZADD', leases_key, 'NX', now_ms + LEASE_MS, client)
    note('leased', 1)
  end
  -- At its limit the client needs no waking by admit: whatever frees a slot looks again, and so does a resume.
  if claim.in_flight >= claim.limit or is_paused('') then
    if not full then note('full', now_ms) end -- since when, for who asks why
  elseif full then
    redis.call('HDEL', counts_key, 'full')
  end
  if #changed > 0 then redis.call('HSET', counts_key, unpack(changed)) end
  local out = claim.out
  out[1], out[2], out[3] = claim.limit, claim.in_flight, claim.more and 1 or 0
  return out
end
