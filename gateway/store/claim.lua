#!lua flags=allow-oom
-- @include scope
-- @include claim
-- Starts as many tasks of any clients of one partition as fit and are wanted. KEYS: scope. ARGV: scope, consumer; then per client:
-- its id, how many are wanted, how many of those may be tasks that one more death of a process would bury.
-- Returns {Redis's clock in ms, then per client {limit, in flight, more 0/1, then queue, entry, fence, id, task for each}, or what
-- failed}; `id` is '' where the task is its entry (see lib/task.lua).
local consumer = ARGV[7]
local out = { now_ms }
for at = 8, #ARGV, 3 do
  enter(ARGV[at])
  local ok, claimed = pcall(claim, consumer, tonumber(ARGV[at + 1]), nil, tonumber(ARGV[at + 2]))
  out[#out + 1] = ok and claimed or worded(claimed)
end
return out
