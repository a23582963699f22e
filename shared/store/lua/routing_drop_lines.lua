#!lua flags=allow-oom
-- Drops the lines with a given prefix from a field of a routing table that is a list of lines.
-- KEYS: routing, log     ARGV: new version, field, prefix; one that ends with the line end is a whole line
-- Reply: the number dropped; without any, nothing changes
--include routing_log
local lines = redis.call('HGET', KEYS[1], ARGV[2]) or ''
local kept, dropped = {}, 0
for line in string.gmatch(lines, '[^\n]*\n') do
  if string.sub(line, 1, #ARGV[3]) == ARGV[3] then dropped = dropped + 1 else kept[#kept + 1] = line end
end
if dropped == 0 then return 0 end
if #kept == 0 then
  redis.call('HDEL', KEYS[1], ARGV[2])
else
  redis.call('HSET', KEYS[1], ARGV[2], table.concat(kept))
end
log_change(KEYS[1], KEYS[2], ARGV[1], ARGV[2])
return dropped
