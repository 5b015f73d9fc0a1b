-- Records: read, also where they are broken; kept; ended. And the tasks of stream entries.
-- @include task

-- The id of the task in a stream entry, in either form.
local function id_in(found)
  local value = found[2][2]
  return found[2][1] == 't' and value or id_at(found[1], unique_in(value))
end

local function entry_at(key, entry) return redis.call('XRANGE', key, entry, entry)[1] end

-- Where a task waits, as its id says (one that has had a record from the beginning came in that millisecond), or its order among
-- those that were taken back: its queue and its entry there.
local function place_of(id)
  local entries, order = {}, redis.call('ZSCORE', returned_key(), id)
  if order then entries[1] = string.format('%.0f-%.0f', math.floor(order / 1000), order % 1000) end
  if string.find(id, '^%x+$') and #id >= 32 then
    entries[#entries + 1] = string.format('%.0f-%.0f', tonumber(string.sub(id, 1, 12), 16), tonumber(string.sub(id, 13, -17), 16))
  end
  for _, queue in ipairs(redis.call('HKEYS', queues_key())) do
    local key = stream_key(queue)
    if string.find(queue, '^[^!]') and redis.call('EXISTS', key) == 1 then
      for _, entry in ipairs(entries) do
        for _, found in ipairs(redis.call('XRANGE', key, entry, string.match(entry, '^%d+'), 'COUNT', 100)) do
          if id_in(found) == id then return queue, found end
        end
      end
    end
  end
end

-- Whether scripts can go by a record with these fields: what they compute with is of its type.
local function well_formed(version, state, entry, due, created, attempts, crashes, fence, finished, _, _, owner, queue, _, expires,
                           bound, _, _, size, _, _, _, _, _, _, _, earlier)
  return version == VERSION and type(due) == 'number' and type(created) == 'number' and type(attempts) == 'number'
    and type(crashes) == 'number' and type(fence) == 'number' and type(finished) == 'number' and type(expires) == 'number'
    and type(bound) == 'number' and type(size) == 'number' and type(owner) == 'string' and type(earlier or '') == 'string'
    and type(queue) == 'string' and string.find(queue, '^[^!]') and type(state) == 'string' and type(entry) == 'string'
    and (state ~= IN_STREAM or string.find(entry, '^%d+%-%d+$'))
end

local function unpacked(packed)
  local ok, read = pcall(cmsgpack.unpack, packed)
  return read, ok and type(read) == 'table' and well_formed(unpack(read, 1, EARLIER))
end

-- What stands for a task that is broken (by hand, or of a version to come), `read` as far as it could be unpacked: well-formed,
-- with its place by its client's keys, and what was stored in the place of its body, each byte a character (Latin-1). Nil where
-- nothing is left to be done with it.
local function stand_in(id, packed, read, queue, entry)
  local due, died = redis.call('ZSCORE', scheduled_key(), id), redis.call('ZSCORE', dead_key(), id)
  local state = due and SCHEDULED or died and DEAD or IN_STREAM
  if state ~= IN_STREAM then
    queue, entry = redis.call('HGET', counts_key, 'queue') or 'default', ''
  elseif not queue then
    local found
    queue, found = place_of(id)
    if not queue then return nil end
    entry = found[1]
  end
  local size = type(read) == 'table' and tonumber(read[SIZE]) or #packed
  local kept = string.gsub(packed, '[\128-\255]', function(byte)
    return string.char(192 + math.floor(string.byte(byte) / 64), 128 + string.byte(byte) % 64)
  end)
  local record = { VERSION, state, entry, tonumber(due) or 0, tonumber(string.sub(id, 1, 12), 16) or 0, 0, 0, 0, tonumber(died) or 0, '',
                   UNREADABLE, client, queue, 0, 0, 0, 0, 1, size, '', '', '', UNREAD, kept, '', '' }
  return record, cmsgpack.pack(record)
end

-- The record of an id, and the record packed. Where the task was found at an entry, that is its place.
local function load_record(id, queue, entry)
  local packed = redis.pcall('GET', task_key(id))
  if not packed then return nil end
  if type(packed) == 'table' then
    if not string.find(packed.err, 'WRONGTYPE', 1, true) then error(packed) end
    packed = ''
  end
  local read, fine = unpacked(packed)
  if fine then return read, packed end
  return stand_in(id, packed, read, queue, entry)
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

-- The task of a stream entry: its id, its record, and the record packed.
local function task_at(queue, found)
  local id, entry, value = id_in(found), found[1], found[2][2]
  local record, packed = load_record(id, queue, entry) -- a fresh one has one, too, once it was taken back
  if record or found[2][1] == 't' then return id, record, packed end
  local ms = tonumber(string.match(entry, '^%d+'))
  packed = pack_record(IN_STREAM, entry, ms, ms, 0, 0, '', '', queue, tail_of(value))
  local read, fine = unpacked(packed)
  if fine then return id, read, packed end
  return id, stand_in(id, value, read, queue, entry)
end

-- A task by its id: its record and the record packed. A fresh one is looked for where its id says.
local function find_task(id)
  local record, packed = load_record(id)
  if record then return record, packed end
  local queue, found = place_of(id)
  if not queue then return nil end
  local _, its_record, its_packed = task_at(queue, found)
  return its_record, its_packed
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

local function schedule(id, record, due, state)
  record[STATE], record[ENTRY], record[DUE] = state, '', due
  save_record(id, record)
  redis.call('ZADD', scheduled_key(), due, id)
  note_due()
end
