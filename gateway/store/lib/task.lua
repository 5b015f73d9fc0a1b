-- A task, in one of two forms. A fresh one that may start at once is its stream entry, `r`: one packed array of the id's end and
-- the fields from RUN_AT on. Every other one (it has a time, an expiry, a bound of its own, a past) has a record, a packed array
-- in a string, whose first eleven fields and EARLIER change; its stream entry, while it has one, is `t`, its id.
-- store/stored.py has the same layouts. No binary type is used, because cmsgpack knows none.
local VERSION = 1
local STATE, ENTRY, DUE, CREATED, ATTEMPTS, CRASHES, FENCE, FINISHED, LAST, REASON = 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
local CLIENT, QUEUE, RUN_AT, EXPIRES, BOUND, MAX_RETRY, TIMEOUT, SIZE = 12, 13, 14, 15, 16, 17, 18, 19
local HEADERS, HAS_BODY, BODY, TRACE, LABELS, EARLIER = 22, 23, 24, 25, 26, 27
local ARRAY_OF_26, ARRAY_OF_27 = '\220\0\26', '\220\0\27' -- EARLIER is there only once an attempt has failed
local UNREAD, UNREADABLE = 3, "the stored task can't be read: it was changed by hand, or by a newer version of the gateway"
local MOST_EARLIER = 20 -- attempts that are kept
local IN_STREAM, SCHEDULED, RETRYING, SUCCEEDED, DEAD, CANCELLED = 'q', 's', 'r', 'S', 'D', 'C'

-- The id of a fresh task says which entry it is: 12 digits of ms, 4 or more of the sequence number (which grows while the clock
-- is put back), then 16 that make it unique. It costs as much as the entry itself to make.
local function id_at(entry, unique)
  local ms, seq = string.match(entry, '^(%d+)-(%d+)$')
  return string.format('%012x%04x', tonumber(ms), tonumber(seq)) .. unique
end

-- Of the value of an entry that is a task: the end of its id (of one that is broken something that may be one), and the fields from
-- RUN_AT on, packed.
local function unique_in(value)
  local unique = string.sub(value, 3, 18)
  return #unique == 16 and string.find(unique, '^%w+$') and unique or string.sub(redis.sha1hex(value), 1, 16)
end
local function tail_of(value) return string.sub(value, 19) end

-- The mutable fields, client and queue, packed before `tail`: the fields from RUN_AT on, as the gateway packs them; and behind
-- it the attempt that failed, where one has.
local function pack_record(state, entry, due, created, attempts, finished, last, reason, queue, tail, failure)
  local head = cmsgpack.pack(VERSION, state, entry, due, created, attempts, 0, 0, finished, last, reason, client, queue)
  if not failure then return ARRAY_OF_26 .. head .. tail end
  return ARRAY_OF_27 .. head .. tail .. cmsgpack.pack(failure .. '\n')
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
