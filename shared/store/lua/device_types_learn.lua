#!lua
-- Stores the types of devices, in the younger of two hashes. The younger one becomes the older one when it is full, or
-- when half of its time is over: so a type is kept for half of that time at least, and an account's types are bounded;
-- the devices that have registered longest ago are forgotten first.
-- Writes nothing for an account that is being deleted. No allow-oom: a full Redis refuses more types.
-- KEYS: account, device types, older device types
-- ARGV: the most devices in one hash, TTL of a hash in ms, deadline in ms or '' for none,
--       then pairs: hash of a device's name, its type or '' for none
-- Reply: by how many bytes what is stored has grown | 'late'
-- Touches at most: 2 fields for each of the devices of one call (250).
-- About what Redis spends on a field besides its text.
local ENTRY_BYTES = 40
if ARGV[3] ~= '' then
--include late
  if is_late(ARGV[3]) then return 'late' end
end
local account, young, old = KEYS[1], KEYS[2], KEYS[3]
if redis.call('HEXISTS', account, 'deleting') == 1 then return 0 end
local ttl_ms, left_ms = tonumber(ARGV[2]), redis.call('PTTL', young)
if left_ms >= 0 and (left_ms < ttl_ms / 2 or redis.call('HLEN', young) >= tonumber(ARGV[1])) then
  -- RENAME would free a hash of that name within this step.
  redis.call('UNLINK', old)
  redis.call('RENAME', young, old)
  left_ms = -1
end
local grown = 0
for i = 4, #ARGV, 2 do
  local device, kind = ARGV[i], ARGV[i + 1]
  if kind ~= '' then
    if redis.call('HSET', young, device, kind) == 1 then grown = grown + ENTRY_BYTES + #device + #kind end
  elseif redis.call('HDEL', young, device) + redis.call('HDEL', old, device) > 0 then
    grown = grown - ENTRY_BYTES - #device
  end
end
if left_ms < 0 then redis.call('PEXPIRE', young, ttl_ms) end
return grown
