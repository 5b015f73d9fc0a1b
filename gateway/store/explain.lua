#!lua flags=allow-oom
-- @include scope
-- @include record
-- @include claim
-- Why one task is where it is. KEYS: scope. ARGV: scope, id, most (tasks in flight to name, and tasks ahead to count). Changes nothing.
-- Returns {} where this client has no such task, else {running 0/1, record, paused 0/1, in flight, its bound, how many are ahead
-- of it in its queue, ids in flight …}.
local id, most = ARGV[7], tonumber(ARGV[8])
local record, packed = find_task(id)
if not record or record[CLIENT] ~= client then return {} end
local queues, in_flight, _, is_paused = read_queues()
local running, ahead, holders = 0, 0, {}
if record[STATE] == IN_STREAM then
  for _, queue in ipairs(queues) do
    if queue.name == record[QUEUE] then
      if redis.call('XPENDING', queue.key, group, record[ENTRY], record[ENTRY], 1)[1] then
        running = 1
      else
        local rank = redis.call('ZRANK', returned_key, id)
        ahead = rank or #redis.call('XRANGE', queue.key, '(' .. queue.last, '(' .. record[ENTRY], 'COUNT', most)
      end
    end
    for _, row in ipairs(queue.pending > 0 and redis.call('XPENDING', queue.key, group, '-', '+', most) or {}) do
      local entry = redis.call('XRANGE', queue.key, row[1], row[1])[1]
      if entry and #holders < most then holders[#holders + 1] = id_in(entry) end
    end
  end
end
local bound = record[BOUND] > 0 and record[BOUND] or limit_now()
return { running, packed, is_paused(record[QUEUE]) and 1 or 0, in_flight, bound, ahead, unpack(holders) }
