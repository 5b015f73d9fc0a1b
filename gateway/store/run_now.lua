#!lua flags=allow-oom
-- @include scope
-- @include record
-- Has scheduled tasks start now, retries included. KEYS: scope. ARGV: scope, ids. Returns how many were scheduled.
local started = 0
for i = 7, #ARGV do
  local id = ARGV[i]
  local record = load_record(id)
  if record and record[CLIENT] == client and redis.call('ZREM', scheduled_key(), id) == 1 then
    record[DUE] = now_ms
    append(id, record)
    started = started + 1
  end
end
if started > 0 then
  note_due()
  mark_ready()
end
return started
