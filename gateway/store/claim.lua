#!lua flags=allow-oom
-- @include scope
-- @include record
-- @include claim
-- Starts as many of one client's tasks as fit and are wanted. KEYS: scope. ARGV: scope, consumer, want.
-- Returns {limit, in flight, more 0/1, Redis's clock in ms, then id, entry, fence, record for each}.
local out = claim(ARGV[7], tonumber(ARGV[8]))
table.insert(out, 4, now_ms)
return out
