#!lua flags=allow-oom
-- @include scope
-- @include record
-- Moves one client's due tasks from the schedule to their streams. KEYS: scope. ARGV: scope, most.
-- Returns how many it moved.
local ids = redis.call('ZRANGE', scheduled_key(), '-inf', now_ms, 'BYSCORE', 'LIMIT', 0, ARGV[7])
for _, id in ipairs(ids) do
  local record = load_record(id)
  redis.call('ZREM', scheduled_key(), id)
  if record then append(id, record) end
end
note_due()
if #ids > 0 then mark_ready() end
return #ids
