#!lua flags=allow-oom
-- The place of the last entry a queue was ever given, also when it is settled and gone.
-- KEYS: queue
-- Returns an entry's place, '0-0' for a queue that was never given one
if redis.call('EXISTS', KEYS[1]) == 0 then return '0-0' end
local told = redis.call('XINFO', 'STREAM', KEYS[1])
for i = 1, #told, 2 do
  if told[i] == 'last-generated-id' then return told[i + 1] end
end
return '0-0'
