#!lua
-- @include scope
-- @include record
-- @include window
-- Decides and stores up to 50 tasks of one client, in order, in one atomic step:
-- idempotency key → window → depth → task record → stream (or the schedule) → the client is marked ready.
-- KEYS: scope, then per task its record and, where it has one, its idempotency key.
-- ARGV: scope, algorithm, new client's JSON ('' for a known one), max clients, max tasks, max bytes, max queues,
--       max tasks and max bytes of all clients, quiet (1: this process claims by itself), idempotency TTL (s); then per task
--       id, queue, limit, cost, size, delay ms, run_at ms, bound, 1 if it has a key, fingerprint, record's fixed fields.
-- Returns {Redis's clock in µs, client created 0/1, then per task {code, used, reset, detail}}; codes are in store/tasks.py.
-- Nothing is counted that is not stored, nothing stored that is not counted. Refused whole when memory is full.
local ALGORITHM, NEW_CLIENT = ARGV[7], ARGV[8]
local MAX_CLIENTS, MAX_TASKS, MAX_BYTES, MAX_QUEUES = tonumber(ARGV[9]), tonumber(ARGV[10]), tonumber(ARGV[11]), tonumber(ARGV[12])
local MAX_ALL_TASKS, MAX_ALL_BYTES = tonumber(ARGV[13]), tonumber(ARGV[14])
local QUIET, KEY_TTL = ARGV[15] == '1', ARGV[16]
local FIRST, WIDTH = 17, 11
local ADMITTED, DUPLICATE, CONFLICT, LIMITED, FULL_TASKS, FULL_BYTES, MANY_QUEUES, MANY_CLIENTS,
      FULL_ALL_TASKS, FULL_ALL_BYTES = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10

local window = read_window(ALGORITHM)
local depth = redis.call('HMGET', depth_key, 'n', 'b', 'full')
local waiting, bytes, full = tonumber(depth[1]) or 0, tonumber(depth[2]) or 0, depth[3]
local totals = redis.call('HMGET', totals_key, 'n', 'b')
local all_waiting, all_bytes = tonumber(totals[1]) or 0, tonumber(totals[2]) or 0
local missing = NEW_CLIENT ~= '' and redis.call('EXISTS', config_key) == 0
local crowded = missing and redis.call('ZCARD', clients_key) >= MAX_CLIENTS
local known_queues = {}
local created, wake = 0, false
local out = { string.format('%d%06d', now_s, now_us), 0 }

local function has_queue(queue)
  if known_queues[queue] == nil then known_queues[queue] = redis.call('HEXISTS', queues_key, queue) == 1 end
  return known_queues[queue]
end

local function decide(limit, cost, size, queue, idempotency_key, fingerprint)
  if idempotency_key then
    local before = redis.call('GET', idempotency_key)
    if before then
      -- WAIT covers what its own connection wrote, and the first task may have come over another one.
      redis.call('APPEND', idempotency_key, '')
      local first = cmsgpack.unpack(before)
      return first[2] == fingerprint and DUPLICATE or CONFLICT, first[1]
    end
  end
  if crowded then return MANY_CLIENTS, '' end
  if not has_queue(queue) then
    local used = 0
    for _, name in ipairs(redis.call('HKEYS', queues_key)) do
      if string.find(name, '^[^!]') then used = used + 1 end
    end
    if used >= MAX_QUEUES then return MANY_QUEUES, '' end
  end
  if window.used + cost > limit then return LIMITED, tostring(wait_for(window, cost, limit)) end
  if waiting >= MAX_TASKS then return FULL_TASKS, '' end
  if bytes + size > MAX_BYTES then return FULL_BYTES, '' end
  if all_waiting >= MAX_ALL_TASKS then return FULL_ALL_TASKS, '' end
  if all_bytes + size > MAX_ALL_BYTES then return FULL_ALL_BYTES, '' end
  return ADMITTED, ''
end

local next_key = 15
for at = FIRST, #ARGV, WIDTH do
  local id, queue, limit, cost, size, delay, run_at, bound, keyed, fingerprint, fixed = unpack(ARGV, at, at + WIDTH - 1)
  limit, cost, size, delay, run_at = tonumber(limit), tonumber(cost), tonumber(size), tonumber(delay), tonumber(run_at)
  local record_key = KEYS[next_key]
  local idempotency_key = keyed == '1' and KEYS[next_key + 1] or nil
  next_key = next_key + (idempotency_key and 2 or 1)

  local code, detail = decide(limit, cost, size, queue, idempotency_key, fingerprint)
  if code == ADMITTED then
    if missing then
      redis.call('SET', config_key, NEW_CLIENT)
      redis.call('ZADD', clients_key, 0, client)
      missing, created = false, 1
    end
    count(window, cost)
    if waiting == 0 then redis.call('ZADD', active_key, 0, client) end
    waiting, bytes = waiting + 1, bytes + size
    all_waiting, all_bytes = all_waiting + 1, all_bytes + size
    redis.call('HSET', depth_key, 'n', waiting, 'b', bytes)
    if idempotency_key then
      redis.call('SET', idempotency_key, cmsgpack.pack({ id, fingerprint }), 'EX', KEY_TTL)
    end
    local due = run_at > 0 and run_at or now_ms + delay
    local state, entry = SCHEDULED, ''
    if due <= now_ms then
      state, due = IN_STREAM, now_ms
      local key = stream_key(queue)
      entry = redis.call('XADD', key, 'NOMKSTREAM', '*', 't', id)
      if not entry then
        redis.call('XGROUP', 'CREATE', key, group, '0', 'MKSTREAM')
        entry = redis.call('XADD', key, '*', 't', id)
      end
      if not full or bound ~= '0' then wake = true end
    else
      detail = 'scheduled'
    end
    if not has_queue(queue) then
      redis.call('HSET', queues_key, queue, 0)
      known_queues[queue] = true
    end
    redis.call('SET', record_key,
      ARRAY_OF_26 .. cmsgpack.pack(VERSION, state, entry, due, now_ms, 0, 0, 0, 0, '', '') .. fixed)
    if state == SCHEDULED then
      redis.call('ZADD', scheduled_key, due, id)
      note_due()
    end
    detail = detail == '' and id or detail
  end
  out[#out + 1] = { code, window.used, window.reset, detail }
end
if all_waiting > (tonumber(totals[1]) or 0) then redis.call('HSET', totals_key, 'n', all_waiting, 'b', all_bytes) end
if wake then mark_ready(QUIET) end
out[2] = created
return out
