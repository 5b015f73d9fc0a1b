-- A task's record: one packed array in a string. Its first eleven fields and EARLIER change, the rest is written by admit
-- and stays.
-- store/records.py reads the same layout. No binary type is used, because cmsgpack knows none.
local VERSION = 1
local STATE, ENTRY, DUE, CREATED, ATTEMPTS, CRASHES, FENCE, FINISHED, LAST, REASON = 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
local CLIENT, QUEUE, RUN_AT, EXPIRES, BOUND, MAX_RETRY, TIMEOUT, SIZE = 12, 13, 14, 15, 16, 17, 18, 19
local HEADERS, HAS_BODY, BODY, TRACE, LABELS, EARLIER = 22, 23, 24, 25, 26, 27
local ARRAY_OF_26 = '\220\0\26' -- EARLIER is there only once an attempt has failed
local MOST_EARLIER = 20 -- attempts that are kept
local IN_STREAM, SCHEDULED, RETRYING, SUCCEEDED, DEAD, CANCELLED = 'q', 's', 'r', 'S', 'D', 'C'

local function load_record(id)
  local packed = redis.call('GET', task_key(id))
  if not packed then return nil end
  return cmsgpack.unpack(packed), packed
end

-- Keeps an attempt that failed beside those that come after it; the oldest go.
local function note_failure(record, failure)
  record[TRACE], record[LABELS] = record[TRACE] or '', record[LABELS] or '' -- a record of a version without them
  local kept = record[EARLIER] or ''
  local _, lines = string.gsub(kept, '\n', '\n')
  if lines >= MOST_EARLIER then kept = string.sub(kept, string.find(kept, '\n', 1, true) + 1) end
  record[EARLIER] = kept .. failure .. '\n'
end

-- The record of a task that goes on keeps no time to live; an ended one gets its own below.
local function save_record(id, record)
  redis.call('SET', task_key(id), cmsgpack.pack(record))
end

-- Takes the task out of the counts and returns how many are left; a client with nothing left is noted as idle since
-- now.
local function leave(record)
  redis.call('HINCRBY', totals_key, 'n', -1)
  redis.call('HINCRBY', totals_key, 'b', -record[SIZE])
  redis.call('HINCRBY', depth_key, 'b', -record[SIZE])
  local left = redis.call('HINCRBY', depth_key, 'n', -1)
  if left <= 0 then redis.call('ZADD', active_key, now_ms, client) end
  return left
end

-- Keeps the newest `most` of an index of ended tasks; at most 100 go in one call, so that no call is long.
local function trim(key, most, ttl)
  redis.call('ZREMRANGEBYSCORE', key, '-inf', now_ms - ttl * 1000)
  local over = redis.call('ZCARD', key) - most
  if over > 0 then
    local gone = redis.call('ZPOPMIN', key, math.min(over, 100))
    for i = 1, #gone, 2 do redis.call('DEL', task_key(gone[i])) end
  end
  redis.call('EXPIRE', key, ttl)
end

-- Ends a task that needs its payload no more (succeeded, cancelled); returns what `leave` does.
local function finish_record(id, record, state)
  record[STATE], record[ENTRY], record[DUE], record[FINISHED] = state, '', 0, now_ms
  record[HEADERS], record[HAS_BODY], record[BODY] = '', 0, ''
  redis.call('SET', task_key(id), cmsgpack.pack(record), 'EX', RESULT_TTL)
  redis.call('ZADD', ended_key, now_ms, id)
  trim(ended_key, MAX_RESULTS, RESULT_TTL)
  return leave(record)
end

-- Ends a task as a dead letter, payload kept for inspection and replay; returns what `leave` does.
local function bury(id, record, reason)
  record[STATE], record[ENTRY], record[DUE], record[FINISHED], record[REASON] = DEAD, '', 0, now_ms, reason
  redis.call('SET', task_key(id), cmsgpack.pack(record), 'EX', DEAD_TTL)
  redis.call('ZADD', dead_key, now_ms, id)
  trim(dead_key, MAX_DEAD, DEAD_TTL)
  return leave(record)
end

-- Puts a task on its queue's stream, creating stream and group where they are missing.
local function append(id, record)
  local key = stream_key(record[QUEUE])
  if redis.call('EXISTS', key) == 0 then
    redis.call('XGROUP', 'CREATE', key, group, '0', 'MKSTREAM')
  end
  redis.call('HSETNX', queues_key, record[QUEUE], 0)
  record[STATE] = IN_STREAM
  record[ENTRY] = redis.call('XADD', key, '*', 't', id)
  save_record(id, record)
end

-- XACK without XDEL leaks the entry, XDEL without XACK leaves a ghost that holds a slot.
local function drop_entry(record)
  local key = stream_key(record[QUEUE])
  redis.call('XACK', key, group, record[ENTRY])
  redis.call('XDEL', key, record[ENTRY])
end

-- Keeps `due` at the client's earliest scheduled task; rings when all have to wake earlier.
local function note_due()
  local first = redis.call('ZRANGE', scheduled_key, 0, 0, 'WITHSCORES')
  if not first[1] then
    redis.call('ZREM', due_key, client)
    return
  end
  local before = redis.call('ZSCORE', due_key, client)
  if before and tonumber(before) == tonumber(first[2]) then return end
  redis.call('ZADD', due_key, first[2], client)
  if redis.call('ZRANGE', due_key, 0, 0)[1] == client then redis.call(PUBLISH, BELL, 'd') end
end

local function schedule(id, record, due, state)
  record[STATE], record[ENTRY], record[DUE] = state, '', due
  save_record(id, record)
  redis.call('ZADD', scheduled_key, due, id)
  note_due()
end
