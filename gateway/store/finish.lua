#!lua flags=allow-oom
-- @include scope
-- @include record
-- @include pending
-- @include claim
-- Ends one attempt: frees the slot and stores the result, schedules the retry, or buries the task; then hands back the
-- client's next tasks in the same trip, or marks the client ready for others.
-- KEYS: scope. ARGV: scope, consumer, want, id, entry, fence, verdict (succeeded|retry|dead), retry in ms, reason, attempt (JSON),
--       and where it failed the shorter form that is kept beside later ones.
-- Returns {} where the claim is not this consumer's any more (nothing changed), else what claim.lua returns.
-- Safe to repeat: the second call finds no claim.
local consumer, want, id, entry, fence = ARGV[7], tonumber(ARGV[8]), ARGV[9], ARGV[10], tonumber(ARGV[11])
local verdict, retry_in, reason, attempt, failure = ARGV[12], tonumber(ARGV[13]), ARGV[14], ARGV[15], ARGV[16]

local record = load_record(id)
if not record or not owns(record, consumer, entry, fence) then return {} end
drop_entry(record)
record[ATTEMPTS] = record[ATTEMPTS] + 1
record[LAST] = attempt
if failure ~= '' then note_failure(record, failure) end
local left
if verdict == 'succeeded' then
  left = finish_record(id, record, SUCCEEDED)
elseif verdict == 'retry' then
  schedule(id, record, now_ms + retry_in, RETRYING)
else
  left = bury(id, record, reason)
end
if want > 0 then
  local out = claim(consumer, want)
  table.insert(out, 4, now_ms)
  return out
end
redis.call('HDEL', depth_key, 'full')
-- Others look only if something waits here.
local waiting = left or tonumber(redis.call('HGET', depth_key, 'n')) or 0
if waiting > redis.call('ZCARD', scheduled_key) then mark_ready() end
return { 0, 0, 0, now_ms }
