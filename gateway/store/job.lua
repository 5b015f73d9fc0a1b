#!lua flags=allow-oom
-- Compare-and-set of a job, so that of two processes that work on it one notices, and an abort is not overwritten.
-- KEYS: the job, all jobs, the open ones. ARGV: what it was ('' for a new one), what it becomes, its id, when it was created (ms),
-- until when its worker has it (ms; '' where it is open no more), how long it is kept (s), how many are.
-- Returns 1 stored, 0 it is not what it was.
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
local id = ARGV[3]
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[6])
redis.call('ZADD', KEYS[2], ARGV[4], id)
redis.call('ZREMRANGEBYRANK', KEYS[2], 0, -1 - tonumber(ARGV[7]))
redis.call('EXPIRE', KEYS[2], ARGV[6])
if ARGV[5] == '' then redis.call('ZREM', KEYS[3], id) else redis.call('ZADD', KEYS[3], ARGV[5], id) end
return 1
