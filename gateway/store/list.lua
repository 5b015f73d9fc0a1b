#!lua flags=no-writes
-- @include scope
-- @include record
-- Some of one client's tasks, walked where they are: its queues by name, the schedule, the dead letters, the results.
-- KEYS: scope. ARGV: scope, which of these (letters of s, z, d, e), queue ('' for all), then where to go on: the letter ('' to
-- begin), the queue, the position there; most (entries to look at), 1 for the newest first, most bytes to read.
-- Returns {looked at, then where to go on (letter, queue, position; '' where this was all)}, then for each task letter, queue,
-- position, id, running 0/1, and its record without payload. A position is an entry's id, or score and task id.
local WANTED, ONLY, AT, AT_QUEUE, AFTER = ARGV[7], ARGV[8], ARGV[9], ARGV[10], ARGV[11]
local MOST, REVERSE, MOST_BYTES = tonumber(ARGV[12]), ARGV[13] == '1', tonumber(ARGV[14])
local AT_ONCE = 10
local looked, bytes = 0, 0
local out = { 0, '', '', '' }

local function full() return looked >= MOST or bytes >= MOST_BYTES end

local function show(letter, queue, position, id, running, record, packed)
  bytes = bytes + #packed
  record[HEADERS], record[HAS_BODY], record[BODY] = '', 0, ''
  if record[EARLIER] then record[EARLIER] = '' end
  for _, value in ipairs({ letter, queue, position, id, running, cmsgpack.pack(record) }) do out[#out + 1] = value end
end

local function go_on(letter, queue, position) out[2], out[3], out[4] = letter, queue, position end

-- Returns whether there may be more. An entry may hold its task, so few are read at once.
local function walk_stream(queue, after)
  local key = stream_key(queue)
  if redis.call('EXISTS', key) == 0 then return false end
  while true do
    local want = math.min(MOST - looked, AT_ONCE)
    local found
    if REVERSE then
      found = redis.call('XREVRANGE', key, after == '' and '+' or '(' .. after, '-', 'COUNT', want)
    else
      found = redis.call('XRANGE', key, after == '' and '-' or '(' .. after, '+', 'COUNT', want)
    end
    if #found == 0 then return false end
    local first, last = found[1][1], found[#found][1]
    if REVERSE then first, last = last, first end
    local pending = {}
    local rows = redis.pcall('XPENDING', key, group, first, last, #found)
    if not rows.err then
      for _, row in ipairs(rows) do pending[row[1]] = true end
    end
    for _, entry in ipairs(found) do
      looked = looked + 1
      local id, record, packed = task_at(queue, entry)
      if record then show('s', queue, entry[1], id, pending[entry[1]] and 1 or 0, record, packed) end
      if full() then
        go_on('s', queue, entry[1])
        return true
      end
    end
    after = found[#found][1]
  end
end

-- The index of the first member that is not before this one, which may have gone.
local function rank_of(key, score, member)
  local low = redis.call('ZCOUNT', key, '-inf', '(' .. score)
  local high = low + redis.call('ZCOUNT', key, score, score)
  while low < high do
    local middle = math.floor((low + high) / 2)
    if redis.call('ZRANGE', key, middle, middle)[1] < member then low = middle + 1 else high = middle end
  end
  return low
end

local function walk_index(letter, key, after)
  local start = REVERSE and redis.call('ZCARD', key) - 1 or 0
  if after ~= '' then
    local score, member = string.match(after, '^(%d+):(.*)$')
    start = rank_of(key, score, member)
    if REVERSE then
      start = start - 1
    elseif redis.call('ZRANGE', key, start, start)[1] == member then
      start = start + 1
    end
  end
  if start < 0 then return false end
  local want = MOST - looked
  local from, to = start, start + want - 1
  if REVERSE then from, to = math.max(0, start - want + 1), start end
  local found = redis.call('ZRANGE', key, from, to, 'WITHSCORES')
  for i = 1, #found, 2 do
    local at = REVERSE and #found - i or i
    local id, position = found[at], string.format('%.0f', tonumber(found[at + 1])) .. ':' .. found[at]
    looked = looked + 1
    local record, packed = load_record(id)
    if record and (ONLY == '' or record[QUEUE] == ONLY) then show(letter, '', position, id, 0, record, packed) end
    if full() then
      go_on(letter, '', position)
      return true
    end
  end
  return false
end

-- Where there may be some, in the order in which they are walked.
local places = {}
if string.find(WANTED, 's', 1, true) then
  local queues = ONLY == '' and redis.call('HKEYS', queues_key()) or { ONLY }
  table.sort(queues)
  for _, queue in ipairs(queues) do
    if string.find(queue, '^[^!]') then places[#places + 1] = { 's', 1, queue } end
  end
end
for order, index in ipairs({ { 'z', scheduled_key() }, { 'd', dead_key() }, { 'e', ended_key() } }) do
  if string.find(WANTED, index[1], 1, true) then places[#places + 1] = { index[1], order + 1, '', index[2] } end
end
local at_order = ({ s = 1, z = 2, d = 3, e = 4 })[AT] or 0
for _, place in ipairs(places) do
  local letter, order, queue, key = unpack(place)
  local behind = order > at_order or (order == at_order and queue > AT_QUEUE)
  if behind or (order == at_order and queue == AT_QUEUE) then
    local after = behind and '' or AFTER
    local more
    if letter == 's' then more = walk_stream(queue, after) else more = walk_index(letter, key, after) end
    if more then break end
  end
end
out[1] = looked
return out
