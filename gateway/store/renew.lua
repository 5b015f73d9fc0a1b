#!lua flags=allow-oom
-- @include scope
-- @include record
-- @include pending
-- Renews claims of one client, while they are still this consumer's. KEYS: scope. ARGV: scope, consumer, then id, entry, fence for each.
-- Returns the positions (from 1) of those that are not. JUSTID leaves the delivery count, which is the fence, alone.
local lost = {}
for i = 8, #ARGV, 3 do
  local id, entry, fence = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2])
  local record = load_record(id)
  if record and owns(record, ARGV[7], entry, fence) then
    redis.call('XCLAIM', stream_key(record[QUEUE]), group, ARGV[7], 0, entry, 'JUSTID')
  else
    lost[#lost + 1] = (i - 5) / 3
  end
end
return lost
