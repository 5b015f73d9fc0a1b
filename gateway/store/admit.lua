#!lua
-- @include scope
-- @include record
-- @include window
-- Decides and stores tasks of any clients of one partition, in order, in one atomic step:
-- idempotency key → window → depth → the task → its stream (or the schedule) → the client is marked ready.
-- KEYS: scope. ARGV: scope, algorithm, max clients, max tasks, max bytes, max queues, max tasks and max bytes of all clients,
--       idempotency TTL (s); then per client: its id, how many tasks, new client's JSON ('' for a known one), quiet (1: this
--       process claims by itself); then per task of it: queue, limit, cost, size, delay ms, run_at ms, bound, 1 where it
--       expires, idempotency key ('': none), fingerprint, unique end of the id, the fields from RUN_AT on.
-- Returns {Redis's clock in µs, then per client: created 0/1, or what failed (and no tasks); per task of it: code, used, reset,
-- detail}; codes are in store/admission.py, `detail` of an admitted task is its id.
-- Nothing is counted that is not stored, nothing stored that is not counted. Refused whole when memory is full.
local ALGORITHM = ARGV[7]
local MAX_CLIENTS, MAX_TASKS, MAX_BYTES, MAX_QUEUES, MAX_ALL_TASKS, MAX_ALL_BYTES =
  tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10]), tonumber(ARGV[11]), tonumber(ARGV[12]), tonumber(ARGV[13])
local KEY_TTL = ARGV[14]
local FIRST, HEAD, WIDTH = 15, 4, 12
local SCHEDULED_ONE, ADMITTED, DUPLICATE, CONFLICT, LIMITED, FULL_TASKS, FULL_BYTES, MANY_QUEUES, MANY_CLIENTS,
      FULL_ALL_TASKS, FULL_ALL_BYTES = 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10

local totals = redis.call('HMGET', totals_key, 'n', 'b')
local all_tasks, all_bytes = tonumber(totals[1]) or 0, tonumber(totals[2]) or 0
local all_tasks_before = all_tasks
local out = { string.format('%d%06d', now_s, now_us) }

local function queues_in_use()
  local used = 0
  for _, name in ipairs(redis.call('HKEYS', queues_key)) do
    if string.find(name, '^[^!]') then used = used + 1 end
  end
  return used
end

-- One client's tasks: what is known of it so far in this script.
local function open(new_client)
  local counts = redis.call('HMGET', counts_key, 'n', 'o', 'l', now_s, 'tasks', 'bytes', 'full', 'ready', 'queue')
  local missing = new_client ~= '' and redis.call('EXISTS', config_key) == 0
  return {
    window = read_window(ALGORITHM, counts[1], counts[2], counts[3], counts[4]),
    tasks = tonumber(counts[5]) or 0, bytes = tonumber(counts[6]) or 0, added = 0,
    full = counts[7], ready = counts[8], queues = { [counts[9] or ''] = true },
    missing = missing, crowded = missing and redis.call('ZCARD', clients_key) >= MAX_CLIENTS,
    created = 0, wake = false, odd = false,
  }
end

local function has_queue(state, queue)
  if state.queues[queue] == nil then state.queues[queue] = redis.call('HEXISTS', queues_key, queue) == 1 end
  return state.queues[queue]
end

local function decide(state, queue, limit, cost, size, idempotency_key, fingerprint)
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
  if state.crowded then return MANY_CLIENTS, '' end
  if not has_queue(state, queue) and queues_in_use() >= MAX_QUEUES then return MANY_QUEUES, '' end
  local window = state.window
  if window.used + cost > limit then return LIMITED, tostring(wait_for(window, cost, limit)) end
  if state.tasks >= MAX_TASKS then return FULL_TASKS, '' end
  if state.bytes + size > MAX_BYTES then return FULL_BYTES, '' end
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

-- Stores an admitted task and returns its id.
local function store(state, queue, size, delay, run_at, bound, expires, unique, tail)
  if state.missing then
    redis.call('SET', config_key, state.new_client)
    redis.call('ZADD', clients_key, 0, client)
    state.missing, state.created = false, 1
  end
  state.tasks, state.bytes, state.added = state.tasks + 1, state.bytes + size, state.added + 1
  all_tasks, all_bytes = all_tasks + 1, all_bytes + size
  if not has_queue(state, queue) then
    redis.call('HSET', queues_key, queue, 0)
    state.queues[queue] = true
  end
  state.queue = queue
  local due = run_at > 0 and run_at or now_ms + delay
  if due > now_ms then
    local id = id_at(string.format('%.0f-0', now_ms), unique)
    redis.call('SET', task_key(id), pack_record(SCHEDULED, '', due, now_ms, 0, 0, '', '', queue, tail))
    redis.call('ZADD', scheduled_key, due, id)
    note_due()
    return id, true
  end
  if bound == '0' and expires == '0' then
    if not state.full then state.wake = true end
    return id_at(add(queue, 'r', ENTRY_OF_14 .. unique .. tail), unique)
  end
  state.wake, state.odd = true, true
  local id = id_at(string.format('%.0f-0', now_ms), unique)
  local entry = add(queue, 't', id)
  redis.call('SET', task_key(id), pack_record(IN_STREAM, entry, now_ms, now_ms, 0, 0, '', '', queue, tail))
  return id
end

local function close(state)
  if state.added == 0 then return end
  if state.tasks == state.added then redis.call('ZADD', active_key, 0, client) end
  local fields = { 'tasks', state.tasks, 'bytes', state.bytes, 'queue', state.queue }
  if state.odd then fields[7], fields[8] = 'odd', 1 end
  write_window(state.window, fields)
  if state.wake and not state.ready then mark_ready(state.quiet) end
end

-- Judges `count_of_tasks` tasks from ARGV[at] on, for the client that was entered.
local function admit(at, count_of_tasks, new_client, quiet, created_at)
  local state = open(new_client)
  state.new_client, state.quiet = new_client, quiet
  for _ = 1, count_of_tasks do
    local queue, limit, cost, size, delay, run_at, bound, expires, named, fingerprint, unique, tail =
      unpack(ARGV, at, at + WIDTH - 1)
    at = at + WIDTH
    cost, size = tonumber(cost), tonumber(size)
    local idempotency_key = named ~= '' and named or nil
    local code, detail = decide(state, queue, tonumber(limit), cost, size, idempotency_key, fingerprint)
    if code == ADMITTED then
      count(state.window, cost)
      local scheduled
      detail, scheduled = store(state, queue, size, tonumber(delay), tonumber(run_at), bound, expires, unique, tail)
      if scheduled then code = SCHEDULED_ONE end
      if idempotency_key then
        redis.call('SET', idempotency_key, cmsgpack.pack({ detail, fingerprint }), 'EX', KEY_TTL)
      end
    end
    local row = #out
    out[row + 1], out[row + 2], out[row + 3], out[row + 4] = code, state.window.used, state.window.reset, detail
  end
  close(state)
  out[created_at] = state.created
end

local at = FIRST
while at <= #ARGV do
  local count_of_tasks, new_client, quiet = tonumber(ARGV[at + 1]), ARGV[at + 2], ARGV[at + 3] == '1'
  local created_at, first = #out + 1, at + HEAD
  out[created_at] = 0
  enter(ARGV[at])
  local problem = guarded(function() admit(first, count_of_tasks, new_client, quiet, created_at) end)
  if problem then
    for row = #out, created_at + 1, -1 do out[row] = nil end
    out[created_at] = problem
  end
  at = first + count_of_tasks * WIDTH
end
if all_tasks > all_tasks_before then redis.call('HSET', totals_key, 'n', all_tasks, 'b', all_bytes) end
return out
