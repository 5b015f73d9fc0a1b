#!lua flags=allow-oom
-- @include scope
-- @include record
-- @include pending
-- Takes back the claims of one client whose lease has lapsed; starts nothing. A task whose dispatchers die under it again and
-- again is buried. KEYS: scope. ARGV: scope, most (what one scan may take, so that a jump of Redis's clock can't move all).
-- Returns {taken back, buried}. Notes in `leases` when to look again.
local most, taken, buried, ghosts, longest, pending = tonumber(ARGV[7]), 0, 0, 0, 0, 0
local cut = false
for _, queue in ipairs(redis.call('HKEYS', queues_key())) do
  local key = stream_key(queue)
  if string.find(queue, '^[^!]') and redis.call('EXISTS', key) == 1 and #redis.call('XINFO', 'GROUPS', key) > 0 then
    local from = '-'
    while not cut do
      local rows = redis.call('XPENDING', key, group, from, '+', 100)
      for _, row in ipairs(rows) do
        from = '(' .. row[1]
        if row[3] < LEASE_MS then
          pending = pending + 1
          longest = math.max(longest, row[3])
        elseif taken + buried >= most then
          cut = true
          break
        else
          local entry = redis.call('XRANGE', key, row[1], row[1])[1]
          local id, record
          if entry then id, record = task_at(queue, entry) end
          if not record then -- a ghost would hold its slot for ever
            redis.call('XACK', key, group, row[1])
            redis.call('XDEL', key, row[1])
            ghosts = ghosts + 1
          else
            record[CRASHES] = record[CRASHES] + 1
            if record[CRASHES] >= MAX_DELIVERIES then
              drop_entry(queue, row[1])
              bury(id, record, string.format('no outcome after %d deliveries', record[CRASHES]))
              buried = buried + 1
            else
              give_back(id, record, row[4])
              taken = taken + 1
            end
          end
        end
      end
      if #rows < 100 then break end
    end
  end
end
if cut then
  redis.call('ZADD', leases_key, now_ms, client)
elseif pending > 0 then
  redis.call('ZADD', leases_key, now_ms + LEASE_MS - longest, client)
else
  redis.call('ZREM', leases_key, client)
  redis.call('HDEL', counts_key, 'leased')
end
if taken + buried + ghosts > 0 then look_again() end
return { taken, buried }
