#!lua flags=allow-oom
-- Where a queue begins and ends, and whether an entry is in it.
-- KEYS: queue     ARGV: entry
-- Returns {the last place it was ever given or '0-0', its first entry or '', 1 if ARGV[1] is in it, else 0}
if redis.call('EXISTS', KEYS[1]) == 0 then return {'0-0', '', 0} end
local last = '0-0'
local told = redis.call('XINFO', 'STREAM', KEYS[1])
for i = 1, #told, 2 do
  if told[i] == 'last-generated-id' then last = told[i + 1] end
end
local head = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
return {last, head and head[1] or '', #redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])}
