#!lua flags=allow-oom
-- @include scope
-- @include record
-- @include claim
-- Starts as many of one client's tasks as fit and are wanted. KEYS: scope. ARGV: scope, consumer, want,
-- how many of those may be tasks that one more death of a process would bury.
-- Returns {Redis's clock in ms, limit, in flight, more 0/1, then queue, entry, fence, id, task for each}; `id` is '' where the
-- task is its entry (see lib/record.lua).
local out = claim(ARGV[7], tonumber(ARGV[8]), nil, tonumber(ARGV[9]))
table.insert(out, 1, now_ms)
return out
