#!lua flags=allow-oom
-- Drops the lines with a given prefix from the bindings of an API key that are a list of lines.
-- Touches at most: 2 fields, whose lines routing_add_line limits, and 256 log lines.
-- KEYS: routing, log, counts
-- ARGV: new version, field, prefix; one that ends with the line end is a whole line; the `key:` field
-- Reply: {lines dropped, version of the key's bindings before, and now}; without any lines nothing changes
--include routing_log
--include counts
local before = redis.call('HGET', KEYS[1], ARGV[4]) or ''
local lines = redis.call('HGET', KEYS[1], ARGV[2]) or ''
local kept, dropped = {}, 0
for line in string.gmatch(lines, '[^\n]*\n') do
  if string.sub(line, 1, #ARGV[3]) == ARGV[3] then dropped = dropped + 1 else kept[#kept + 1] = line end
end
if dropped == 0 then return {0, before, before} end
add_count(KEYS[3], 'bindings', -dropped)
if #kept == 0 then
  redis.call('HDEL', KEYS[1], ARGV[2])
else
  redis.call('HSET', KEYS[1], ARGV[2], table.concat(kept))
end
return {dropped, before, log_bindings(KEYS[1], KEYS[2], ARGV[1], ARGV[4], ARGV[2])}
