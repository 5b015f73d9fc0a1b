-- A task, in one of two forms. A fresh one that may start at once is its stream entry, `r`: one packed array of the id's end and
-- the fields from RUN_AT on. Every other one (it has a time, an expiry, a bound of its own, a past) has a record, a packed array
-- in a string, whose first eleven fields and EARLIER change; its stream entry, while it has one, is `t`, its id.
-- store/records.py reads the same layouts. No binary type is used, because cmsgpack knows none.
local VERSION = 1
local STATE, ENTRY, DUE, CREATED, ATTEMPTS, CRASHES, FENCE, FINISHED, LAST, REASON = 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
local CLIENT, QUEUE, RUN_AT, EXPIRES, BOUND, MAX_RETRY, TIMEOUT, SIZE = 12, 13, 14, 15, 16, 17, 18, 19
local HEADERS, HAS_BODY, BODY, TRACE, LABELS, EARLIER = 22, 23, 24, 25, 26, 27
local ARRAY_OF_26, ARRAY_OF_27 = '\220\0\26', '\220\0\27' -- EARLIER is there only once an attempt has failed
local MOST_EARLIER = 20 -- attempts that are kept
local IN_STREAM, SCHEDULED, RETRYING, SUCCEEDED, DEAD, CANCELLED = 'q', 's', 'r', 'S', 'D', 'C'

-- The id of a fresh task says which entry it is: 12 digits of ms, 4 or more of the sequence number (which grows while the clock
-- is put back), then 16 that make it unique. It costs as much as the entry itself to make.
local function id_at(entry, unique)
  local ms, seq = string.match(entry, '^(%d+)-(%d+)$')
  return string.format('%012x%04x', tonumber(ms), tonumber(seq)) .. unique
end

-- Of the value of an entry that is a task: the end of its id, and the fields from RUN_AT on, packed.
local function unique_in(value) return string.sub(value, 3, 18) end
local function tail_of(value) return string.sub(value, 19) end

local function load_record(id)
  local packed = redis.call('GET', task_key(id))
  if not packed then return nil end
  return cmsgpack.unpack(packed), packed
end

-- The record of a task that goes on keeps no time to live; an ended one gets its own below.
local function save_record(id, record)
  redis.call('SET', task_key(id), cmsgpack.pack(record))
end

-- Keeps an attempt that failed beside those that come after it; the oldest go.
local function note_failure(record, failure)
  local kept = record[EARLIER] or ''
  local _, lines = string.gsub(kept, '\n', '\n')
  if lines >= MOST_EARLIER then kept = string.sub(kept, string.find(kept, '\n', 1, true) + 1) end
  record[EARLIER] = kept .. failure .. '\n'
end

-- The mutable fields, client and queue, packed before `tail`: the fields from RUN_AT on, as the gateway packs them; and behind
-- it the attempt that failed, where one has.
local function pack_record(state, entry, due, created, attempts, finished, last, reason, queue, tail, failure)
  local head = cmsgpack.pack(VERSION, state, entry, due, created, attempts, 0, 0, finished, last, reason, client, queue)
  if not failure then return ARRAY_OF_26 .. head .. tail end
  return ARRAY_OF_27 .. head .. tail .. cmsgpack.pack(failure .. '\n')
end

-- The id of the task in a stream entry, in either form.
local function id_in(found)
  local value = found[2][2]
  return found[2][1] == 't' and value or id_at(found[1], unique_in(value))
end

-- The task of a stream entry: its id, its record, and the record packed.
local function task_at(queue, found)
  local id, entry, value = id_in(found), found[1], found[2][2]
  local record, packed = load_record(id) -- a fresh one has one, too, once it was taken back
  if record or found[2][1] == 't' then return id, record, packed end
  local ms = tonumber(string.match(entry, '^%d+'))
  packed = pack_record(IN_STREAM, entry, ms, ms, 0, 0, '', '', queue, tail_of(value))
  return id, cmsgpack.unpack(packed), packed
end

local function entry_at(key, entry) return redis.call('XRANGE', key, entry, entry)[1] end

-- A task by its id: its record and the record packed. A fresh one is looked for where its id says.
local function find_task(id)
  local record, packed = load_record(id)
  if record then return record, packed end
  if not string.find(id, '^%x+$') or #id < 32 then return nil end
  local entry = string.format('%.0f-%.0f', tonumber(string.sub(id, 1, 12), 16), tonumber(string.sub(id, 13, -17), 16))
  for _, queue in ipairs(redis.call('HKEYS', queues_key())) do
    if string.find(queue, '^[^!]') then
      local key = stream_key(queue)
      local found = redis.call('EXISTS', key) == 1 and entry_at(key, entry)
      if found and found[2][1] == 'r' then
        local other, its_record, its_packed = task_at(queue, found)
        if other == id then return its_record, its_packed end
      end
    end
  end
  return nil
end

-- Takes a task out of the counts; a client with nothing left is noted as idle since now.
local function leave(record)
  redis.call('HINCRBY', totals_key, 'n', -1)
  redis.call('HINCRBY', totals_key, 'b', -record[SIZE])
  redis.call('HINCRBY', counts_key, 'bytes', -record[SIZE])
  local left = redis.call('HINCRBY', counts_key, 'tasks', -1)
  if left <= 0 then redis.call('ZADD', active_key, now_ms, client) end
end

local function tasks_left() return tonumber(redis.call('HGET', counts_key, 'tasks')) or 0 end

-- @include trim

-- `ended` among the counts is never less than the index of results holds, so that a finish need not count.
local function trim_ended() redis.call('HSET', counts_key, 'ended', trim(ended_key(), MAX_RESULTS, RESULT_TTL)) end

-- Ends a task that needs its payload no more (succeeded, cancelled). Counts are the caller's affair.
local function store_ended(id, record, state)
  record[STATE], record[ENTRY], record[DUE], record[FINISHED] = state, '', 0, now_ms
  record[HEADERS], record[HAS_BODY], record[BODY] = '', 0, ''
  redis.call('SET', task_key(id), cmsgpack.pack(record), 'EX', RESULT_TTL)
  redis.call('ZADD', ended_key(), now_ms, id)
end

-- Ends a task as a dead letter, payload kept for inspection and replay. Counts are the caller's affair.
local function store_dead(id, record, reason)
  record[STATE], record[ENTRY], record[DUE], record[FINISHED], record[REASON] = DEAD, '', 0, now_ms, reason
  redis.call('SET', task_key(id), cmsgpack.pack(record), 'EX', DEAD_TTL)
  redis.call('ZADD', dead_key(), now_ms, id)
  trim(dead_key(), MAX_DEAD, DEAD_TTL)
end

local function cancel_record(id, record)
  store_ended(id, record, CANCELLED)
  trim_ended()
  leave(record)
end

local function bury(id, record, reason)
  store_dead(id, record, reason)
  leave(record)
end

-- Puts a task with a record on its queue's stream, creating stream and group where they are missing.
local function append(id, record)
  local key = stream_key(record[QUEUE])
  if redis.call('EXISTS', key) == 0 then
    redis.call('XGROUP', 'CREATE', key, group, '0', 'MKSTREAM')
  end
  redis.call('HSETNX', queues_key(), record[QUEUE], 0)
  if record[BOUND] > 0 or record[EXPIRES] > 0 then redis.call('HSET', counts_key, 'odd', 1) end
  record[STATE] = IN_STREAM
  record[ENTRY] = redis.call('XADD', key, '*', 't', id)
  save_record(id, record)
end

-- XACK without XDEL leaks the entry, XDEL without XACK leaves a ghost that holds a slot.
local function drop_entry(queue, entry)
  local key = stream_key(queue)
  redis.call('XACK', key, group, entry)
  redis.call('XDEL', key, entry)
end

-- Keeps `due` at the client's earliest scheduled task; rings when all have to wake earlier.
local function note_due()
  local first = redis.call('ZRANGE', scheduled_key(), 0, 0, 'WITHSCORES')
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
  redis.call('ZADD', scheduled_key(), due, id)
  note_due()
end
