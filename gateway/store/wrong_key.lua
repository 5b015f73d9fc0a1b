#!lua
-- Counts a wrong key that was looked at, whichever process looked: a bucket that fills up again by itself.
-- KEYS: the bucket, a string: when it will be full again, in µs. ARGV: µs by which a guess moves that further off.
-- Returns in how many µs it will be full. Gone by itself then.
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000000 + tonumber(clock[2])
local full_at = math.max(now, tonumber(redis.call('GET', KEYS[1]) or 0)) + tonumber(ARGV[1])
redis.call('SET', KEYS[1], string.format('%d', full_at), 'PX', math.ceil((full_at - now) / 1000))
return full_at - now
