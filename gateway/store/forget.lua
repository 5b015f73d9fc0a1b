#!lua flags=allow-oom
-- @include scope
-- @include record
-- Removes dead tasks and their payloads for good. KEYS: scope. ARGV: scope, ids. Returns how many were dead.
local gone = 0
for i = 7, #ARGV do
  local id = ARGV[i]
  local record = load_record(id)
  if record and record[CLIENT] == client and record[STATE] == DEAD then
    redis.call('ZREM', dead_key(), id)
    redis.call('DEL', task_key(id))
    gone = gone + 1
  end
end
return gone
