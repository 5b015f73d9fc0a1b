#!lua flags=allow-oom
-- @include scope
-- @include record
-- @include claim
-- Why one task is where it is. KEYS: scope. ARGV: scope, id, most tasks ahead to count, most tasks in flight to name. Changes nothing.
-- Returns {} where this client has no such task, else {running 0/1, record, since when it is paused (ms; 0: it is not, 1: unknown),
-- since when the client is at its limit (the same), in flight, its bound, how many are ahead of it in its queue, 1 where those are
-- not all, ids in flight …}.
local id, most, most_named = ARGV[7], tonumber(ARGV[8]), tonumber(ARGV[9])
local MOST_BYTES = 4 * 1024 * 1024 -- an entry may hold its task
local record, packed = find_task(id)
if not record or record[CLIENT] ~= client then return {} end
local queues, in_flight = read_queues()
local running, ahead, more, holders = 0, 0, 0, {}

local function count_ahead(queue)
  local after, bytes = queue.last, 0
  while true do
    local found = redis.call('XRANGE', queue.key, '(' .. after, '(' .. record[ENTRY], 'COUNT', 10)
    if #found == 0 then return end
    if ahead >= most or bytes >= MOST_BYTES then
      more = 1
      return
    end
    ahead = ahead + #found
    after = found[#found][1]
    for _, entry in ipairs(found) do bytes = bytes + #entry[2][2] end
  end
end

if record[STATE] == IN_STREAM then
  for _, queue in ipairs(queues) do
    if queue.name == record[QUEUE] then
      if redis.call('XPENDING', queue.key, group, record[ENTRY], record[ENTRY], 1)[1] then
        running = 1
      else
        local rank = redis.call('ZRANK', returned_key(), id)
        if rank then ahead = rank else count_ahead(queue) end
      end
    end
    for _, row in ipairs(queue.pending > 0 and redis.call('XPENDING', queue.key, group, '-', '+', most_named) or {}) do
      local entry = redis.call('XRANGE', queue.key, row[1], row[1])[1]
      if entry and #holders < most_named then holders[#holders + 1] = id_in(entry) end
    end
  end
end
local pauses = redis.call('HMGET', queues_key(), '!', '!' .. record[QUEUE])
local paused = tonumber(pauses[1] or pauses[2]) or 0
if pauses[1] and pauses[2] then paused = math.min(tonumber(pauses[1]), tonumber(pauses[2])) end
local full = tonumber(redis.call('HGET', counts_key, 'full')) or 0
local bound = record[BOUND] > 0 and record[BOUND] or limit_now()
return { running, packed, paused, full, in_flight, bound, ahead, more, unpack(holders) }
