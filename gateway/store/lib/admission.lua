-- Decides and stores tasks of any clients of one partition, in order, in one atomic step:
-- idempotency key → window → depth → the task → its stream (or the schedule) → the client is marked ready, or claimed for.
-- KEYS: scope. ARGV: scope, algorithm, max clients, max tasks, max bytes, max queues, max tasks and max bytes of all clients,
--       idempotency TTL (s), and packed in one string, value after value (a string is much cheaper to hand over than each of
--       them): per client its id, how many tasks, new client's JSON ('' for a known one), quiet (1: this process claims by
--       itself); then per task of it: queue, limit, cost, size, delay ms, run_at ms, bound, 1 where it expires, idempotency
--       key ('': none), fingerprint, and the task as the value of an entry (`r`).
-- Returns {Redis's clock in µs, then per client: created 0/1, or what failed (and no tasks); per task of it: code, used, reset,
-- detail}; codes are in store/admission.py, `detail` of an admitted task is its id, or its entry, which the id begins with.
-- Nothing is counted that is not stored, nothing stored that is not counted, also where a key is broken: a task that fails says so
-- (`detail`: what it failed with), and the others go on. Refused whole when memory is full.
-- `start` is the script's, or nil: called in place of marking a client ready for others.
local ALGORITHM = ARGV[7]
local MAX_CLIENTS, MAX_TASKS, MAX_BYTES, MAX_QUEUES, MAX_ALL_TASKS, MAX_ALL_BYTES =
  tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10]), tonumber(ARGV[11]), tonumber(ARGV[12]), tonumber(ARGV[13])
local KEY_TTL, TOLD = ARGV[14], ARGV[15]
local HEAD, WIDTH = 4, 11
local FAILED, SCHEDULED_ONE, ADMITTED, DUPLICATE, CONFLICT, LIMITED, FULL_TASKS, FULL_BYTES, MANY_QUEUES, MANY_CLIENTS,
      FULL_ALL_TASKS, FULL_ALL_BYTES = -1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10

local totals = redis.call('HMGET', totals_key, 'n', 'b')
local all_tasks, all_bytes = tonumber(totals[1]) or 0, tonumber(totals[2]) or 0
local all_tasks_before = all_tasks
local out = { string.format('%d%06d', now_s, now_us) }

local function queues_in_use()
  local used = 0
  for _, name in ipairs(redis.call('HKEYS', queues_key())) do
    if string.find(name, '^[^!]') then used = used + 1 end
  end
  return used
end

-- Of the client that was entered: what is known of it so far in this script.
local window, tasks, bytes, added, full, ready, last_queue, queues, missing, crowded, wake, odd, scheduled
local function open(new_client)
  local counts = redis.call('HMGET', counts_key, 'tasks', 'bytes', 'n', 'o', 'l', now_s, 'full', 'ready', 'queue')
  tasks, bytes, added = tonumber(counts[1]) or 0, tonumber(counts[2]) or 0, 0
  window = read_window(ALGORITHM, counts[3], counts[4], counts[5], counts[6])
  full, ready, last_queue, queues = counts[7], counts[8], counts[9], nil
  missing = new_client ~= '' and redis.call('EXISTS', config_key()) == 0
  crowded = missing and redis.call('ZCARD', clients_key) >= MAX_CLIENTS
  wake, odd, scheduled = false, false, false
end

local function has_queue(queue)
  if queue == last_queue then return true end
  queues = queues or {}
  if queues[queue] == nil then queues[queue] = redis.call('HEXISTS', queues_key(), queue) == 1 end
  return queues[queue]
end

local function decide(queue, limit, cost, size, idempotency_key, fingerprint)
  if idempotency_key then
    local before = redis.call('GET', idempotency_key)
    if before then
      -- WAIT covers what its own connection wrote, and the first task may have come over another one.
      redis.call('APPEND', idempotency_key, '')
      local first = cmsgpack.unpack(before)
      if first[2] == fingerprint then return DUPLICATE, first[1] end
      return CONFLICT, first[1] .. ' ' .. first[2] -- made with another key it may be the same task's: the gateway judges
    end
  end
  if crowded then return MANY_CLIENTS, '' end
  if not has_queue(queue) and queues_in_use() >= MAX_QUEUES then return MANY_QUEUES, '' end
  if window.used + cost > limit then return LIMITED, tostring(wait_for(window, cost, limit)) end
  if tasks >= MAX_TASKS then return FULL_TASKS, '' end
  if bytes + size > MAX_BYTES then return FULL_BYTES, '' end
  if all_tasks >= MAX_ALL_TASKS then return FULL_ALL_TASKS, '' end
  if all_bytes + size > MAX_ALL_BYTES then return FULL_ALL_BYTES, '' end
  return ADMITTED, ''
end

local function add(queue, field, value)
  local key = stream_key(queue)
  local entry = redis.call('XADD', key, 'NOMKSTREAM', '*', field, value)
  if entry then return entry end
  redis.call('XGROUP', 'CREATE', key, group, '0', 'MKSTREAM')
  return redis.call('XADD', key, '*', field, value)
end

-- Stores an admitted task and returns how it was admitted, and its id, or its entry where the id is not `named` here. The first
-- write is the one that may fail; what is counted was stored.
local function store(queue, cost, size, delay, run_at, bound, expires, value, named)
  local due, code, place = run_at > 0 and run_at or now_ms + delay, ADMITTED, nil
  if due > now_ms then
    code, place = SCHEDULED_ONE, id_at(string.format('%.0f-0', now_ms), unique_in(value))
    redis.call('ZADD', scheduled_key(), due, place)
    redis.call('SET', task_key(place), pack_record(SCHEDULED, '', due, now_ms, 0, 0, '', '', queue, tail_of(value)))
    scheduled = true
  elseif bound == 0 and expires == 0 then
    place = add(queue, 'r', value)
    if named then place = id_at(place, unique_in(value)) end
    if not full then wake = true end
  else
    place = id_at(string.format('%.0f-0', now_ms), unique_in(value))
    local entry = add(queue, 't', place)
    redis.call('SET', task_key(place), pack_record(IN_STREAM, entry, now_ms, now_ms, 0, 0, '', '', queue, tail_of(value)))
    wake, odd = true, true
  end
  if not has_queue(queue) then
    redis.call('HSET', queues_key(), queue, 0)
    queues[queue] = true
  end
  tasks, bytes, added = tasks + 1, bytes + size, added + 1
  all_tasks, all_bytes = all_tasks + 1, all_bytes + size
  count(window, cost)
  return code, place
end

-- Notes what was stored for the client; returns 1 where that made it.
local function close(new_client, queue, quiet)
  if added == 0 then return 0 end
  local fields = { 'tasks', tasks, 'bytes', bytes }
  if queue ~= last_queue then fields[5], fields[6] = 'queue', queue end
  if odd then fields[#fields + 1], fields[#fields + 2] = 'odd', 1 end
  write_window(window, fields)
  if tasks == added then redis.call('ZADD', active_key, 0, client) end
  if missing then
    redis.call('SET', config_key(), new_client)
    redis.call('ZADD', clients_key, 0, client)
  end
  if scheduled then note_due() end
  if wake and start then
    start()
  elseif wake and not ready then
    mark_ready(quiet)
  end
  return missing and 1 or 0
end

-- Judges the next task of TOLD, which `read` ends behind; returns its queue where it was stored.
local at, left = 0, 0
local function judge(read, queue, limit, cost, size, delay, run_at, bound, expires, named, fingerprint, value)
  at, left = read, left - 1
  local idempotency_key = named ~= '' and named or nil
  local code, detail = decide(queue, limit, cost, size, idempotency_key, fingerprint)
  local stored
  if code == ADMITTED then
    code, detail = store(queue, cost, size, delay, run_at, bound, expires, value, idempotency_key)
    if idempotency_key then
      redis.call('SET', idempotency_key, cmsgpack.pack({ detail, fingerprint }), 'EX', KEY_TTL)
    end
    stored = queue
  end
  local row = #out
  out[row + 1], out[row + 2], out[row + 3], out[row + 4] = code, window.used, window.reset, detail
  return stored
end

local function admit(new_client, quiet)
  open(new_client)
  local last
  while left > 0 do
    local ok, queue = pcall(judge, cmsgpack.unpack_limit(TOLD, WIDTH, at))
    if not ok then
      local row = #out
      out[row + 1], out[row + 2], out[row + 3], out[row + 4] = FAILED, 0, 0, worded(queue)
    elseif queue then
      last = queue
    end
  end
  return close(new_client, last, quiet == 1)
end

while at >= 0 do
  local name, new_client, quiet
  at, name, left, new_client, quiet = cmsgpack.unpack_limit(TOLD, HEAD, at)
  local row = #out + 1
  out[row] = 0
  enter(name)
  local ok, made = pcall(admit, new_client, quiet)
  if ok then
    out[row] = made
  else
    for n = #out, row + 1, -1 do out[n] = nil end
    out[row] = worded(made)
    while left > 0 do at, left = cmsgpack.unpack_limit(TOLD, WIDTH, at), left - 1 end
  end
end
if all_tasks > all_tasks_before then redis.call('HSET', totals_key, 'n', all_tasks, 'b', all_bytes) end
