#!lua
-- @include scope
-- @include record
-- Puts dead tasks back at the end of their queues, as if they had just been enqueued: attempts and crashes begin anew, and
-- an expiry is over. KEYS: scope. ARGV: scope, ids. Returns how many were dead.
local replayed = 0
for i = 7, #ARGV do
  local id = ARGV[i]
  local record = load_record(id)
  if record and record[CLIENT] == client and record[STATE] == DEAD then
    redis.call('ZREM', dead_key(), id)
    record[DUE], record[ATTEMPTS], record[CRASHES], record[FENCE] = now_ms, 0, 0, 0
    record[FINISHED], record[REASON], record[EXPIRES] = 0, '', 0
    append(id, record)
    redis.call('HINCRBY', totals_key, 'n', 1)
    redis.call('HINCRBY', totals_key, 'b', record[SIZE])
    redis.call('HINCRBY', counts_key, 'bytes', record[SIZE])
    redis.call('HINCRBY', counts_key, 'tasks', 1)
    replayed = replayed + 1
  end
end
if replayed > 0 then
  redis.call('ZADD', active_key, 0, client)
  mark_ready()
end
return replayed
