#!lua flags=allow-oom
-- @include scope
-- Stores a signing secret in another form, where it still is the one that was read, and tells every replica. KEYS: scope.
-- ARGV: scope, the secrets' key, id, the value that was read, the value to store.
-- Returns 1, or 0 where it was removed or changed meanwhile.
local key, id, was, value = ARGV[7], ARGV[8], ARGV[9], ARGV[10]
if redis.call('HGET', key, id) ~= was then return 0 end
redis.call('HSET', key, id, value)
redis.call(PUBLISH, BELL, 'c' .. client)
return 1
