#!lua flags=allow-oom
-- @include scope
-- @include record
-- Cancels one task that waits. KEYS: scope. ARGV: scope, id. Returns {} where this client has no such task, else
-- {cancelled 0/1, running 0/1, record}.
local id = ARGV[7]
local record, packed = find_task(id)
if not record or record[CLIENT] ~= client then return {} end
local state = record[STATE]
if state == SCHEDULED or state == RETRYING then
  redis.call('ZREM', scheduled_key(), id)
  note_due()
elseif state == IN_STREAM then
  local key = stream_key(record[QUEUE])
  if redis.call('EXISTS', key) == 1 and redis.call('XPENDING', key, group, record[ENTRY], record[ENTRY], 1)[1] then
    return { 0, 1, packed }
  end
  redis.call('XDEL', key, record[ENTRY])
  redis.call('ZREM', returned_key(), id)
else
  return { 0, 0, packed }
end
cancel_record(id, record)
-- Its head may have been what held the queue back.
if tasks_left() > 0 then mark_ready() end
return { 1, 0, cmsgpack.pack(record) }
