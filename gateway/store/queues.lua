#!lua flags=no-writes
-- @include scope
-- @include record
-- How each queue of one client stands, and what share of its tasks ended badly of late. KEYS: scope. ARGV: scope, seconds to look back.
-- Returns {bytes that wait, tasks that ended in that time, how many of these dead, then for each queue its name, 1 if it is paused,
-- how many wait, how many run, since when the oldest waits (ms; 0: none waits)}. Where not all results of that time are kept, it
-- looks back as far as they reach.
local since = now_ms - tonumber(ARGV[7]) * 1000
for _, kept in ipairs({ { ended_key(), MAX_RESULTS }, { dead_key(), MAX_DEAD } }) do
  if redis.call('ZCARD', kept[1]) >= kept[2] then
    since = math.max(since, tonumber(redis.call('ZRANGE', kept[1], 0, 0, 'WITHSCORES')[2]))
  end
end
local dead = redis.call('ZCOUNT', dead_key(), since, '+inf')
local out = { tonumber(redis.call('HGET', counts_key, 'bytes')) or 0, dead + redis.call('ZCOUNT', ended_key(), since, '+inf'), dead }

local paused, names = {}, {}
for _, field in ipairs(redis.call('HKEYS', queues_key())) do
  if string.sub(field, 1, 1) == '!' then
    paused[string.sub(field, 2)] = true
  elseif field ~= '' then
    names[#names + 1] = field
  end
end
table.sort(names)
local returned, returned_since = nil, nil
local first = redis.call('ZRANGE', returned_key(), 0, 0, 'WITHSCORES')
if first[1] then
  local record = load_record(first[1])
  returned, returned_since = record and record[QUEUE], math.floor(tonumber(first[2]) / 1000)
end
for _, name in ipairs(names) do
  local key, waiting, running, oldest = stream_key(name), 0, 0, 0
  if redis.call('EXISTS', key) == 1 then
    waiting = redis.call('XLEN', key)
    local groups = redis.call('XINFO', 'GROUPS', key)
    local last = '-'
    if #groups > 0 then
      local seen = {}
      for j = 1, #groups[1], 2 do seen[groups[1][j]] = groups[1][j + 1] end
      running, last = seen['pending'], '(' .. seen['last-delivered-id']
    end
    waiting = waiting - running
    local next_one = redis.call('XRANGE', key, last, '+', 'COUNT', 1)[1]
    if next_one then oldest = tonumber(string.match(next_one[1], '^%d+')) end
    if returned == name and (oldest == 0 or returned_since < oldest) then oldest = returned_since end
  end
  for _, value in ipairs({ name, (paused[''] or paused[name]) and 1 or 0, waiting, running, oldest }) do out[#out + 1] = value end
end
return out
