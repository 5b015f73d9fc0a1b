#!lua flags=allow-oom
-- @include scope
-- @include pending
-- Renews claims of one client, while they are still this consumer's. KEYS: scope. ARGV: scope, consumer, then queue, entry, fence for each.
-- Returns the positions (from 1) of those that are not. JUSTID leaves the delivery count, which is the fence, alone.
local lost = {}
for i = 8, #ARGV, 3 do
  local queue, entry, fence = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2])
  if owns(queue, ARGV[7], entry, fence) then
    redis.call('XCLAIM', stream_key(queue), group, ARGV[7], 0, entry, 'JUSTID')
  else
    lost[#lost + 1] = (i - 5) / 3
  end
end
return lost
