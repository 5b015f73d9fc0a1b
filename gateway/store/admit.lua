#!lua
-- @include scope
-- @include task
-- @include window
-- Admits tasks: see lib/admission.lua.
local start = nil -- dispatchers claim
-- @include admission
return out
