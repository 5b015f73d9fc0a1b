-- The fence: a claim is still this consumer's while the pending list says so, at the entry and with the delivery count it was
-- given. The count alone begins at 1 again with each retry: a finish that is repeated because its reply was lost would then
-- end the next attempt; an entry's id is never used twice.
local function owns(queue, consumer, entry, fence)
  local rows = redis.pcall('XPENDING', stream_key(queue), group, entry, entry, 1)
  if rows.err then
    if string.find(rows.err, 'NOGROUP', 1, true) then return false end -- the stream is gone
    error(rows)
  end
  local row = rows[1]
  return row ~= nil and row[2] == consumer and row[4] == fence
end

-- Takes a claim back: off the pending list, still in its stream at its old id, noted in `returned` under its old order.
-- The next claim gets a higher fence, so that a late finish or renewal of the old one is refused.
local function give_back(id, record, fence)
  redis.call('XACK', stream_key(record[QUEUE]), group, record[ENTRY])
  record[FENCE] = fence
  save_record(id, record)
  local ms, seq = string.match(record[ENTRY], '^(%d+)-(%d+)$')
  redis.call('ZADD', returned_key(), tonumber(ms) * 1000 + math.min(tonumber(seq), 999), id)
  redis.call('HSET', counts_key, 'returned', 1)
end
