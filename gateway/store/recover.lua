#!lua flags=allow-oom
-- @include scope
-- @include record
-- @include pending
-- After a lost reply: gives back what is pending under this consumer and unknown to it. KEYS: scope.
-- ARGV: scope, consumer, then queue, entry for each it knows. Returns how many it gave back; at most 100 a queue in one call.
local known, given = {}, 0
for i = 8, #ARGV, 2 do known[ARGV[i] .. ' ' .. ARGV[i + 1]] = true end
for _, queue in ipairs(redis.call('HKEYS', queues_key())) do
  local key = stream_key(queue)
  if string.find(queue, '^[^!]') and redis.call('EXISTS', key) == 1 then
    for _, row in ipairs(redis.call('XPENDING', key, group, '-', '+', 100, ARGV[7])) do
      local entry = not known[queue .. ' ' .. row[1]] and redis.call('XRANGE', key, row[1], row[1])[1]
      local id, record
      if entry then id, record = task_at(queue, entry) end
      if record then
        give_back(id, record, row[4])
        given = given + 1
      end
    end
  end
end
if given > 0 then look_again() end
return given
