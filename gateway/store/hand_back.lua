#!lua flags=allow-oom
-- @include scope
-- @include record
-- @include pending
-- Gives claims back at once (drain); counts toward nothing. KEYS: scope. ARGV: scope, consumer, then id, entry, fence for each.
-- Returns how many were this consumer's.
local given = 0
for i = 8, #ARGV, 3 do
  local id, entry, fence = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2])
  local record = load_record(id)
  if record and owns(record, ARGV[7], entry, fence) then
    give_back(id, record, fence)
    given = given + 1
  end
end
if given > 0 then
  redis.call('HDEL', depth_key, 'full')
  mark_ready()
end
return given
