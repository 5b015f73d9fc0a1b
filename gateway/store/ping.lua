#!lua flags=allow-oom
-- Refused by a server that takes no writes (a replica, a full disk), which PING would not tell. Returns 1.
return 1
