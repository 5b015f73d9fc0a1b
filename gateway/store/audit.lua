#!lua flags=allow-oom
-- @include scope
-- @include record
-- @include claim
-- Holds what one client's keys say against each other. All of it is kept by scripts that change both sides in one step, so a
-- difference is a defect, or somebody wrote behind the gateway's back. Also drops the consumers of processes that are gone
-- (each costs every look at the group) and the streams of a client that has been idle.
-- KEYS: scope. ARGV: scope, idle ms after which streams and consumers go, 1 to mend what differs.
-- Returns {kind, detail} for each difference; looks at no more than 100 entries of a kind.
local IDLE_MS, MEND = tonumber(ARGV[7]), ARGV[8] == '1'
local MOST = 100
local found, mends = {}, {}
local function differs(kind, detail, mend)
  found[#found + 1] = { kind, detail }
  mends[#mends + 1] = mend
end

local queues, in_flight, _, is_paused = read_queues()
local entries, waits = 0, false
for _, queue in ipairs(queues) do
  entries = entries + redis.call('XLEN', queue.key)
  waits = waits or not is_paused(queue.name)
    and redis.call('XRANGE', queue.key, '(' .. queue.last, '+', 'COUNT', 1)[1] ~= nil
  for _, row in ipairs(queue.pending > 0 and redis.call('XPENDING', queue.key, group, '-', '+', MOST) or {}) do
    local entry = entry_at(queue.key, row[1])
    if not entry or (entry[2][1] == 't' and redis.call('EXISTS', task_key(entry[2][2])) == 0) then
      differs('ghost', 'pending entry ' .. row[1] .. ' of queue ' .. queue.name .. ' has no task and holds a slot', function()
        redis.call('XACK', queue.key, group, row[1])
        redis.call('XDEL', queue.key, row[1])
      end)
    end
  end
end

for _, id in ipairs(redis.call('ZRANGE', returned_key(), 0, MOST - 1)) do
  local record = load_record(id)
  local key = record and record[STATE] == IN_STREAM and stream_key(record[QUEUE])
  if not key or #redis.call('XRANGE', key, record[ENTRY], record[ENTRY]) == 0
    or #redis.call('XPENDING', key, group, record[ENTRY], record[ENTRY], 1) > 0 then
    differs('returned', 'task ' .. id .. ' is noted as taken back and is not', function()
      redis.call('ZREM', returned_key(), id)
    end)
  else
    waits = waits or not is_paused(record[QUEUE])
  end
end

if redis.call('EXISTS', returned_key()) == 1 and not redis.call('HGET', counts_key, 'returned') then
  differs('returned', 'tasks that were taken back are not noted, so no claim looks at them', function()
    redis.call('HSET', counts_key, 'returned', 1)
  end)
end

for _, id in ipairs(redis.call('ZRANGE', scheduled_key(), 0, MOST - 1)) do
  local record = load_record(id)
  if not record or (record[STATE] ~= SCHEDULED and record[STATE] ~= RETRYING) then
    differs('scheduled', 'task ' .. id .. ' is in the schedule and is not scheduled', function()
      redis.call('ZREM', scheduled_key(), id)
    end)
  end
end
local first, due = redis.call('ZRANGE', scheduled_key(), 0, 0, 'WITHSCORES')[2], redis.call('ZSCORE', due_key, client)
if tonumber(first or 0) ~= tonumber(due or 0) then
  differs('due', 'the schedule begins at ' .. (first or 'never') .. ', noted is ' .. (due or 'never'), function() end)
end

local noted = tasks_left()
local counted = entries + redis.call('ZCARD', scheduled_key())
if noted ~= counted then
  differs('depth', noted .. ' tasks are noted, streams and schedule hold ' .. counted, function() end)
end
if counted > 0 and tonumber(redis.call('ZSCORE', active_key, client) or -1) ~= 0 then
  differs('active', 'has tasks and is not noted as active', function() redis.call('ZADD', active_key, 0, client) end)
end
if in_flight > 0 and not redis.call('ZSCORE', leases_key, client) then
  differs('lease', 'has ' .. in_flight .. ' calls open and nobody looks at their leases', function()
    redis.call('ZADD', leases_key, now_ms + LEASE_MS, client)
    redis.call('HSET', counts_key, 'leased', 1)
  end)
end
-- Waiting behind a call in flight is no stranding: its finish looks again.
if waits and in_flight == 0 and not redis.call('ZSCORE', ready_key, client) then
  differs('stranded', 'has tasks to start and is not noted as ready', function()
    look_again()
  end)
end

local sum, booked = 0, redis.call('HGETALL', counts_key)
for i = 1, #booked, 2 do
  if tonumber(booked[i]) then sum = sum + tonumber(booked[i + 1]) end
end
local total = tonumber(redis.call('HGET', counts_key, 'n')) or 0
if sum ~= total then
  differs('window', 'its seconds hold ' .. sum .. ' requests, noted are ' .. total, function()
    redis.call('HSET', counts_key, 'n', sum)
  end)
end

if #found > 0 then
  if MEND then
    for _, mend in ipairs(mends) do mend() end
    -- What the mends above took away changes these two.
    local left = redis.call('ZCARD', scheduled_key())
    for _, queue in ipairs(queues) do left = left + redis.call('XLEN', queue.key) end
    redis.call('HSET', counts_key, 'tasks', left)
    redis.call('HINCRBY', totals_key, 'n', left - noted)
    note_due()
    if left > 0 then mark_ready() end
  end
  return found
end

for _, queue in ipairs(queues) do
  for _, row in ipairs(redis.call('XINFO', 'CONSUMERS', queue.key, group)) do
    local consumer = {}
    for i = 1, #row, 2 do consumer[row[i]] = row[i + 1] end
    -- Never with something pending: those entries would be gone from the pending list for good.
    if consumer['pending'] == 0 and consumer['idle'] > IDLE_MS then
      redis.call('XGROUP', 'DELCONSUMER', queue.key, group, consumer['name'])
    end
  end
end
local since = tonumber(redis.call('ZSCORE', active_key, client)) or 0
if counted == 0 and since > 0 and now_ms - since > IDLE_MS then
  for _, queue in ipairs(queues) do redis.call('DEL', queue.key) end
  for _, field in ipairs(redis.call('HKEYS', queues_key())) do
    if string.sub(field, 1, 1) ~= '!' then redis.call('HDEL', queues_key(), field) end
  end
  redis.call('DEL', counts_key)
  trim(ended_key(), MAX_RESULTS, RESULT_TTL)
  if redis.call('EXISTS', dead_key()) == 0 then redis.call('ZREM', active_key, client) end
else
  trim_ended()
end
return found
