#!lua flags=allow-oom
-- @include scope
-- @include record
-- @include pending
-- Gives claims back at once (drain); counts toward nothing. KEYS: scope. ARGV: scope, consumer, then queue, entry, fence for each.
-- Returns how many were this consumer's.
local given = 0
for i = 8, #ARGV, 3 do
  local queue, entry, fence = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2])
  if owns(queue, ARGV[7], entry, fence) then
    local found = entry_at(stream_key(queue), entry)
    if found then
      local id, record = task_at(queue, found)
      if record then
        give_back(id, record, fence)
        given = given + 1
      end
    end
  end
end
if given > 0 then look_again() end
return given
