#!lua flags=allow-oom
-- @include scope
-- @include record
-- @include pending
-- @include claim
-- Ends attempts of any clients of one partition: frees each slot and stores the result, schedules the retry, or buries the task;
-- then hands back the client's next tasks in the same trip, or marks the client ready for others.
-- KEYS: scope. ARGV: scope, consumer; then per client: its id, how many attempts, how many tasks are wanted; then per attempt of
--       it: queue, entry, fence, id, verdict (succeeded|retry|dead), retry in ms, reason, attempt (JSON), where it failed the
--       shorter form that is kept beside later ones, size, the fields from RUN_AT on where the task was its entry ('': it has
--       a record).
-- Returns {Redis's clock in ms, then per client: a string with 1 for each attempt that was this consumer's and 0 for each that
-- was not any more (there nothing changed), and what claim.lua returns after the clock, or what failed}.
-- Safe to repeat: the second call finds no claim.
local consumer = ARGV[7]
local FIRST, HEAD, WIDTH = 8, 3, 11
local all_tasks, all_bytes = 0, 0

-- The record of a task that was its entry until now. That it had none is the fence, since whatever takes a claim of a fresh task
-- back, or ends it, leaves a record. Returns whether it is the first.
local function keep_fresh(queue, entry, id, verdict, due, reason, attempt, failure, tail)
  local created, key = tonumber(string.match(entry, '^%d+')), task_key(id)
  if verdict == 'succeeded' then
    local record = pack_record(SUCCEEDED, '', 0, created, 1, now_ms, attempt, '', queue, tail)
    return redis.call('SET', key, record, 'NX', 'EX', RESULT_TTL)
  elseif verdict == 'dead' then
    local record = pack_record(DEAD, '', 0, created, 1, now_ms, attempt, reason, queue, tail, failure)
    return redis.call('SET', key, record, 'NX', 'EX', DEAD_TTL)
  end
  return redis.call('SET', key, pack_record(RETRYING, '', due, created, 1, 0, attempt, '', queue, tail, failure), 'NX')
end

-- Ends an attempt of a task that has a record; returns whether its claim was this consumer's.
local function finish_kept(queue, entry, fence, id, verdict, due, reason, attempt, failure)
  if not owns(queue, consumer, entry, tonumber(fence)) then return false end
  local record = load_record(id)
  if not record then return false end
  drop_entry(queue, entry)
  record[ATTEMPTS] = record[ATTEMPTS] + 1
  record[LAST] = attempt
  if failure ~= '' then note_failure(record, failure) end
  if verdict == 'succeeded' then
    store_ended(id, record, SUCCEEDED)
  elseif verdict == 'dead' then
    store_dead(id, record, reason)
  else
    schedule(id, record, due, RETRYING)
  end
  return true
end

-- Takes entries of fresh tasks off their stream, all at once. Where not all were pending, `gone` is told of those that were not:
-- so late that their records had come and gone, and their entries with them.
local function drop_entries(stream, entries, gone)
  if redis.call('XACK', stream, group, unpack(entries)) < #entries then
    for n, entry in ipairs(entries) do
      if not entry_at(stream, entry) then gone(n) end
    end
  end
  redis.call('XDEL', stream, unpack(entries))
end

-- Ends `attempts` attempts from ARGV[first] on, of the client that was entered. Returns what is told of them, and what was claimed.
local function finish_all(first, attempts, want)
  local owned, streams = {}, {}
  local function attempt_at(i) return unpack(ARGV, first + (i - 1) * WIDTH, first + i * WIDTH - 1) end
  for i = 1, attempts do
    local queue, entry, fence, id, verdict, retry_in, reason, attempt, failure, _, tail = attempt_at(i)
    local due = now_ms + tonumber(retry_in)
    if tail == '' then
      owned[i] = finish_kept(queue, entry, fence, id, verdict, due, reason, attempt, failure)
    elseif keep_fresh(queue, entry, id, verdict, due, reason, attempt, failure, tail) then
      owned[i] = true
      local of = streams[queue] or { entries = {}, places = {} }
      streams[queue] = of
      of.entries[#of.entries + 1], of.places[#of.places + 1] = entry, i
    end
  end
  for queue, of in pairs(streams) do
    drop_entries(stream_key(queue), of.entries, function(n)
      local i = of.places[n]
      owned[i] = false
      redis.call('DEL', task_key(select(4, attempt_at(i))))
    end)
  end

  local told, ended, bytes, succeeded = {}, 0, 0, 0
  local noted = { succeeded = {}, dead = {}, retry = {} } -- of the fresh ones: score and id of each
  for i = 1, attempts do
    told[i] = owned[i] and '1' or '0'
    if owned[i] then
      local _, _, _, id, verdict, retry_in, _, _, _, size, tail = attempt_at(i)
      if verdict ~= 'retry' then ended, bytes = ended + 1, bytes + tonumber(size) end
      if verdict == 'succeeded' then succeeded = succeeded + 1 end
      if tail ~= '' then
        local of = noted[verdict]
        of[#of + 1] = now_ms + tonumber(retry_in)
        of[#of + 1] = id
      end
    end
  end
  if noted.succeeded[1] then redis.call('ZADD', ended_key(), unpack(noted.succeeded)) end
  if noted.dead[1] then
    redis.call('ZADD', dead_key(), unpack(noted.dead))
    trim(dead_key(), MAX_DEAD, DEAD_TTL)
  end
  if noted.retry[1] then
    redis.call('ZADD', scheduled_key(), unpack(noted.retry))
    note_due()
  end

  all_tasks, all_bytes = all_tasks + ended, all_bytes + bytes
  local counts = redis.call('HMGET', counts_key, 'odd', 'returned', 'ready', 'leased', 'full', 'tasks', 'bytes', 'ended')
  local left = (tonumber(counts[6]) or 0) - ended
  if ended > 0 then
    local kept = (tonumber(counts[8]) or 0) + succeeded
    -- `ended` is never less than there are, so the index is looked at only where it may be too long.
    if kept > MAX_RESULTS then kept = trim(ended_key(), MAX_RESULTS, RESULT_TTL) end
    redis.call('HSET', counts_key, 'tasks', left, 'bytes', (tonumber(counts[7]) or 0) - bytes, 'ended', kept)
    if left <= 0 then redis.call('ZADD', active_key, now_ms, client) end
  end
  told = table.concat(told)
  if want > 0 and string.find(told, '1', 1, true) then return told, claim(consumer, want, counts) end
  if counts[5] then redis.call('HDEL', counts_key, 'full') end
  -- Others look only if something waits here.
  if left > 0 and not counts[3] and left > redis.call('ZCARD', scheduled_key()) then mark_ready() end
  return told, { 0, 0, 0 }
end

local out = { now_ms }
local at = FIRST
while at <= #ARGV do
  local attempts, want, first = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), at + HEAD
  enter(ARGV[at])
  local ok, told, claimed = pcall(finish_all, first, attempts, want)
  out[#out + 1] = ok and told or ''
  out[#out + 1] = ok and claimed or worded(told)
  at = first + attempts * WIDTH
end
if all_tasks > 0 then
  redis.call('HINCRBY', totals_key, 'n', -all_tasks)
  redis.call('HINCRBY', totals_key, 'b', -all_bytes)
end
return out
