#!lua flags=allow-oom
-- @include scope
-- @include record
-- @include pending
-- Renews claims of one client, while they are still this consumer's. KEYS: scope. ARGV: scope, consumer, then id, fence for each.
-- Returns the ids that are not. JUSTID leaves the delivery count, which is the fence, alone.
local lost = {}
for i = 8, #ARGV, 2 do
  local id, fence = ARGV[i], tonumber(ARGV[i + 1])
  local record = load_record(id)
  if record and owns(record, ARGV[7], fence) then
    redis.call('XCLAIM', stream_key(record[QUEUE]), group, ARGV[7], 0, record[ENTRY], 'JUSTID')
  else
    lost[#lost + 1] = id
  end
end
return lost
