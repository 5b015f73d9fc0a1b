#!lua flags=allow-oom
-- @include scope
-- @include record
-- @include claim
-- Cancels up to `most` of what one client has waiting. KEYS: scope. ARGV: scope, most. Returns how many; 0 when none is left.
local most, gone = tonumber(ARGV[7]), 0
local function cancel(id, record)
  if record then cancel_record(id, record) end
  gone = gone + 1
end
for _, id in ipairs(redis.call('ZRANGE', scheduled_key(), 0, most - 1)) do
  local record = load_record(id) -- before it is off: of a broken one that tells where it is
  redis.call('ZREM', scheduled_key(), id)
  cancel(id, record)
end
note_due()
for _, id in ipairs(redis.call('ZRANGE', returned_key(), 0, most - gone - 1)) do
  if gone >= most then break end
  local record = load_record(id)
  redis.call('ZREM', returned_key(), id)
  if record then redis.call('XDEL', stream_key(record[QUEUE]), record[ENTRY]) end
  cancel(id, record)
end
for _, queue in ipairs((read_queues())) do
  if gone >= most then break end
  for _, entry in ipairs(redis.call('XRANGE', queue.key, '(' .. queue.last, '+', 'COUNT', most - gone)) do
    local id, record = task_at(queue.name, entry)
    redis.call('XDEL', queue.key, entry[1])
    cancel(id, record)
  end
end
return gone
