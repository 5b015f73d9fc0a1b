#!lua flags=allow-oom
-- @include scope
-- Changes the keys a client shows, and tells every replica. KEYS: scope.
-- ARGV: scope, the keys' key, what to do, key id, hash of the key, how many there may be. What to do:
-- 'offer' a key; 'create' one, and 'require' one from now on; 'rotate' (the oldest goes where there are as many as there
-- may be); 'revoke' one; 'close' (revoke all); 'release' (revoke all, and require none any more).
-- Returns when it was made (µs), how many are gone, or -1: as many as there may be (offer, create), none there (rotate,
-- require).
local key, what, id, hash, most = ARGV[7], ARGV[8], ARGV[9], ARGV[10], tonumber(ARGV[11])
local made, oldest = {}, nil
for _, field in ipairs(redis.call('HKEYS', key)) do
  if field ~= 'required' then
    made[field] = redis.call('HGET', key, field)
    made[#made + 1] = field
    -- Values begin with the time, in digits of equal number.
    if not oldest or made[field] < made[oldest] then oldest = field end
  end
end
local done
if what == 'offer' or what == 'create' or what == 'rotate' then
  local full = #made >= most
  if what == 'rotate' and #made == 0 or what ~= 'rotate' and full then return -1 end
  if full then redis.call('HDEL', key, oldest) end
  done = now_s * 1000000 + now_us
  redis.call('HSET', key, id, string.format('%d%06d', now_s, now_us) .. ' ' .. hash)
  if what == 'create' then redis.call('HSET', key, 'required', 1) end
elseif what == 'require' then
  if #made == 0 then return -1 end
  done = redis.call('HSET', key, 'required', 1)
elseif what == 'revoke' then
  done = redis.call('HDEL', key, id)
elseif what == 'close' then
  done = #made > 0 and redis.call('HDEL', key, unpack(made)) or 0
else
  done = redis.call('DEL', key)
end
redis.call(PUBLISH, BELL, 'c' .. client)
return done
