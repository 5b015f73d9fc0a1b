#!lua flags=no-writes
-- @include scope
-- @include record
-- One task as it stands. KEYS: scope. ARGV: scope, id. Returns {} where this client has no such task, else {running 0/1, record}.
local record, packed = find_task(ARGV[7])
if not record or record[CLIENT] ~= client then return {} end
local running = 0
if record[STATE] == IN_STREAM then
  local key = stream_key(record[QUEUE])
  if redis.call('EXISTS', key) == 1 and redis.call('XPENDING', key, group, record[ENTRY], record[ENTRY], 1)[1] then
    running = 1
  end
end
return { running, packed }
