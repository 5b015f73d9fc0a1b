#!lua
-- @include scope
-- @include task
-- @include window
-- @include claim
-- Admits a task, as lib/admission.lua does, for a process that starts at once what its client may: one call in place of two.
-- ARGV in addition: consumer, how many, how many of those may be tasks that one more death of a process would bury.
-- Returns in addition what claim.lua returns of the client, {} where nothing was to be claimed, or what failed: what was admitted
-- stays admitted then.
local starts = false
local function start() starts = true end
-- @include admission
-- Only now that all is written: a claim may bury what has expired, and counts that.
out[#out + 1] = {}
if starts then
  local counts = redis.call('HMGET', counts_key, 'odd', 'returned', 'ready', 'leased', 'full')
  local ok, found = pcall(claim, ARGV[16], tonumber(ARGV[17]), counts, tonumber(ARGV[18]))
  out[#out] = ok and found or worded(found)
  if not ok then mark_ready() end
end
return out
