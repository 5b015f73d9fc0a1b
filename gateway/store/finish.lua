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

-- A task that was its entry: it has a record from here on. That it had none is the fence, since whatever takes a claim of
-- a fresh task back, or ends it, leaves a record. Returns whether the claim was this consumer's, and whether the task is over.
local function finish_fresh(queue, entry, id, verdict, retry_in, reason, attempt, failure, tail)
  local created, key, record, ttl = tonumber(string.match(entry, '^%d+')), task_key(id), nil, RESULT_TTL
  if verdict == 'succeeded' then
    record = pack_record(SUCCEEDED, '', 0, created, 1, now_ms, attempt, '', queue, tail)
  elseif verdict == 'dead' then
    record, ttl = pack_record(DEAD, '', 0, created, 1, now_ms, attempt, reason, queue, tail, failure), DEAD_TTL
  else
    record, ttl = pack_record(RETRYING, '', now_ms + retry_in, created, 1, 0, attempt, '', queue, tail, failure), nil
  end
  local stored
  if ttl then stored = redis.call('SET', key, record, 'NX', 'EX', ttl) else stored = redis.call('SET', key, record, 'NX') end
  if not stored then return false end
  local stream = stream_key(queue)
  if redis.call('XACK', stream, group, entry) == 0 then -- so late that its record has come and gone
    redis.call('DEL', key)
    return false
  end
  redis.call('XDEL', stream, entry)
  if verdict == 'retry' then
    redis.call('ZADD', scheduled_key, now_ms + retry_in, id)
    note_due()
    return true, false
  end
  redis.call('ZADD', verdict == 'dead' and dead_key or ended_key, now_ms, id)
  if verdict == 'dead' then trim(dead_key, MAX_DEAD, DEAD_TTL) end
  return true, true
end

-- Ends one attempt; returns whether its claim was this consumer's, and whether the task is over.
local function finish(queue, entry, fence, id, verdict, retry_in, reason, attempt, failure, tail)
  if tail ~= '' then
    return finish_fresh(queue, entry, id, verdict, tonumber(retry_in), reason, attempt, failure, tail)
  end
  if not owns(queue, consumer, entry, tonumber(fence)) then return false end
  local record = load_record(id)
  if not record then return false end
  drop_entry(queue, entry)
  record[ATTEMPTS] = record[ATTEMPTS] + 1
  record[LAST] = attempt
  if failure ~= '' then note_failure(record, failure) end
  if verdict == 'retry' then
    schedule(id, record, now_ms + tonumber(retry_in), RETRYING)
    return true, false
  end
  if verdict == 'dead' then store_dead(id, record, reason) else store_ended(id, record, SUCCEEDED) end
  return true, true
end

-- Ends `attempts` attempts from ARGV[at] on, of the client that was entered. Returns what is told of them, and what was claimed.
local function finish_all(at, attempts, want)
  local owned, ended, bytes, succeeded = {}, 0, 0, 0
  for i = 1, attempts do
    local queue, entry, fence, id, verdict, retry_in, reason, attempt, failure, size, tail =
      unpack(ARGV, at, at + WIDTH - 1)
    at = at + WIDTH
    local mine, over = finish(queue, entry, fence, id, verdict, retry_in, reason, attempt, failure, tail)
    owned[i] = mine and '1' or '0'
    if over then
      ended, bytes = ended + 1, bytes + tonumber(size)
      if verdict == 'succeeded' then succeeded = succeeded + 1 end
    end
  end
  all_tasks, all_bytes = all_tasks + ended, all_bytes + bytes
  local counts = redis.call('HMGET', counts_key, 'odd', 'returned', 'ready', 'leased', 'full', 'tasks', 'bytes', 'ended')
  local left = (tonumber(counts[6]) or 0) - ended
  if ended > 0 then
    local kept = (tonumber(counts[8]) or 0) + succeeded
    -- `ended` is never less than there are, so the index is looked at only where it may be too long.
    if kept > MAX_RESULTS then kept = trim(ended_key, MAX_RESULTS, RESULT_TTL) end
    redis.call('HSET', counts_key, 'tasks', left, 'bytes', (tonumber(counts[7]) or 0) - bytes, 'ended', kept)
    if left <= 0 then redis.call('ZADD', active_key, now_ms, client) end
  end
  local told = table.concat(owned)
  if want > 0 and string.find(told, '1', 1, true) then return told, claim(consumer, want, counts) end
  if counts[5] then redis.call('HDEL', counts_key, 'full') end
  -- Others look only if something waits here.
  if left > 0 and not counts[3] and left > redis.call('ZCARD', scheduled_key) then mark_ready() end
  return told, { 0, 0, 0 }
end

local out = { now_ms }
local at = FIRST
while at <= #ARGV do
  local attempts, want, first = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), at + HEAD
  local told, claimed
  enter(ARGV[at])
  local problem = guarded(function() told, claimed = finish_all(first, attempts, want) end)
  out[#out + 1] = told or ''
  out[#out + 1] = problem or claimed
  at = first + attempts * WIDTH
end
if all_tasks > 0 then
  redis.call('HINCRBY', totals_key, 'n', -all_tasks)
  redis.call('HINCRBY', totals_key, 'b', -all_bytes)
end
return out
