#!lua flags=allow-oom
-- @include scope
-- Has a client looked at again whose limit may have changed with its tier's. KEYS, ARGV: scope. Returns 1 where something waits.
redis.call('HDEL', counts_key, 'full')
if (tonumber(redis.call('HGET', counts_key, 'tasks')) or 0) == 0 then return 0 end
mark_ready()
return 1
