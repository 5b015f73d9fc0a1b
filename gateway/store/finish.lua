#!lua flags=allow-oom
-- @include scope
-- @include trim
-- @include claim
-- Ends attempts of any clients of one partition: frees each slot and stores the result, schedules the retry, or buries the task;
-- then hands back the client's next tasks in the same trip, or marks the client ready for others.
-- KEYS: scope. ARGV: scope, consumer, and packed in one string, value after value: per client its id, how many attempts, how many
--       tasks are wanted; then per attempt of it: verdict (succeeded|retry|dead), queue, entry, id, size, and two more. Where the
--       task was its entry and succeeded: its record packed but for FINISHED, what is before it and what is behind. Else an array
--       of fence, retry in ms, reason, attempt (JSON), where it failed the shorter form that is kept beside later ones, the
--       fields from RUN_AT on where the task was its entry ('': it has a record); and ''.
-- Returns {Redis's clock in ms, then per client: a string with 1 for each attempt that was this consumer's and 0 for each that
-- was not any more (there nothing changed), and what claim.lua returns after the clock, or what failed}.
-- Safe to repeat: the second call finds no claim.
local consumer, TOLD = ARGV[7], ARGV[8]
local HEAD, WIDTH = 3, 7
local FINISHED_NOW = cmsgpack.pack(now_ms)
local NOW = string.format('%.0f', now_ms)
local all_tasks, all_bytes = 0, 0

-- What is seldom needed, made only where it is: a function costs more to make than to call.
local rest_of_it
local function rest()
  if rest_of_it then return rest_of_it end
-- @include record
-- @include pending

  -- The record of a task that was its entry until now, and whose attempt failed. Returns whether it is the first.
  local function keep_failed(queue, entry, id, verdict, due, reason, attempt, failure, tail)
    local created, key = tonumber(string.match(entry, '^%d+')), task_key(id)
    if verdict == 'dead' then
      local record = pack_record(DEAD, '', 0, created, 1, now_ms, attempt, reason, queue, tail, failure)
      return redis.call('SET', key, record, 'NX', 'EX', DEAD_TTL)
    end
    return redis.call('SET', key, pack_record(RETRYING, '', due, created, 1, 0, attempt, '', queue, tail, failure), 'NX')
  end

  -- Ends an attempt of a task that has a record; returns whether its claim was this consumer's.
  local function finish_kept(queue, entry, fence, id, verdict, due, reason, attempt, failure)
    if not owns(queue, consumer, entry, fence) then return false end
    local record = load_record(id, queue, entry)
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

  rest_of_it = { keep_failed = keep_failed, finish_kept = finish_kept, note_due = note_due, entry_at = entry_at }
  return rest_of_it
end

-- Of the client that was entered, attempt by attempt: whether it was this consumer's, verdict, id, size, and of a fresh task when it
-- ended or is tried again.
local owned, verdicts, ids, sizes, scores
local streams -- of each queue, the fresh tasks among them: their entries, and which they are

-- Ends the next attempt of TOLD, which `read` ends behind. That a fresh task has no record yet is the fence, since whatever takes
-- its claim back, or ends it, leaves one.
local at, left = 0, 0
local function finish_one(read, verdict, queue, entry, id, size, told, behind)
  at, left = read, left - 1
  local i = #ids + 1
  verdicts[i], ids[i], sizes[i] = verdict, id, size
  local score, kept
  if behind ~= '' then
    score, kept = NOW, redis.call('SET', task_key(id), told .. FINISHED_NOW .. behind, 'NX', 'EX', RESULT_TTL)
  else
    local fence, retry_in, reason, attempt, failure, tail = unpack(told)
    local due = now_ms + retry_in
    if tail == '' then
      owned[i] = rest().finish_kept(queue, entry, fence, id, verdict, due, reason, attempt, failure)
      return
    end
    score, kept = due, rest().keep_failed(queue, entry, id, verdict, due, reason, attempt, failure, tail)
  end
  if not kept then return end
  owned[i], scores[i] = true, score
  local of = streams[queue]
  if not of then
    of = { entries = {}, places = {} }
    streams[queue] = of
  end
  local n = #of.entries + 1
  of.entries[n], of.places[n] = entry, i
end

-- Takes entries of fresh tasks off their stream, all at once. Where not all were pending, some may come so late that their records
-- had come and gone, and their entries with them.
local function drop_entries(stream, of)
  if redis.call('XACK', stream, group, unpack(of.entries)) < #of.entries then
    for n, entry in ipairs(of.entries) do
      local i = of.places[n]
      if not rest().entry_at(stream, entry) then
        owned[i] = false
        redis.call('DEL', task_key(ids[i]))
      end
    end
  end
  redis.call('XDEL', stream, unpack(of.entries))
end

-- Ends the attempts of TOLD that are left of the client that was entered. Returns what is told of them, and what was claimed.
local function finish_all(want)
  owned, verdicts, ids, sizes, scores, streams = {}, {}, {}, {}, {}, {}
  while left > 0 do finish_one(cmsgpack.unpack_limit(TOLD, WIDTH, at)) end
  for queue, of in pairs(streams) do drop_entries(stream_key(queue), of) end

  local told, ended, bytes, succeeded = {}, 0, 0, 0
  local done, dead, retried = {}, {}, {} -- the fresh ones: score and id of each
  for i, id in ipairs(ids) do
    told[i] = owned[i] and '1' or '0'
    if owned[i] then
      local of = retried
      if verdicts[i] ~= 'retry' then
        ended, bytes, of = ended + 1, bytes + sizes[i], dead
        if verdicts[i] == 'succeeded' then succeeded, of = succeeded + 1, done end
      end
      if scores[i] then
        local n = #of
        of[n + 1], of[n + 2] = scores[i], id
      end
    end
  end
  if done[1] then redis.call('ZADD', ended_key(), unpack(done)) end
  if dead[1] then
    redis.call('ZADD', dead_key(), unpack(dead))
    trim(dead_key(), MAX_DEAD, DEAD_TTL)
  end
  if retried[1] then
    redis.call('ZADD', scheduled_key(), unpack(retried))
    rest().note_due()
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
while at >= 0 do
  local name, want
  at, name, left, want = cmsgpack.unpack_limit(TOLD, HEAD, at)
  enter(name)
  local ok, told, claimed = pcall(finish_all, want)
  out[#out + 1] = ok and told or ''
  out[#out + 1] = ok and claimed or worded(told)
  while left > 0 do at, left = cmsgpack.unpack_limit(TOLD, WIDTH, at), left - 1 end
end
if all_tasks > 0 then
  redis.call('HINCRBY', totals_key, 'n', -all_tasks)
  redis.call('HINCRBY', totals_key, 'b', -all_bytes)
end
return out
