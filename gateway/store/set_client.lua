#!lua
-- @include scope
-- Compare-and-set of a client's settings, so that two admins at once lose nothing. KEYS: scope.
-- ARGV: scope, JSON as it was read ('' for none), JSON to store, max clients.
-- Returns 1 stored, 0 changed meanwhile (read again), -1 too many clients.
local before = redis.call('GET', config_key()) or ''
if before ~= ARGV[7] then return 0 end
if before == '' and redis.call('ZCARD', clients_key) >= tonumber(ARGV[9]) then return -1 end
redis.call('SET', config_key(), ARGV[8])
redis.call('ZADD', clients_key, 0, client)
redis.call(PUBLISH, BELL, 'c' .. client)
-- A higher limit may let waiting work start.
redis.call('HDEL', counts_key, 'full')
if redis.call('EXISTS', queues_key()) == 1 then mark_ready() end
return 1
