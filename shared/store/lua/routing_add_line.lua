#!lua
-- Adds one line to the bindings of an API key that are a list of lines.
-- Touches at most: 2 fields, whose lines the caller limits, and 256 log lines.
-- KEYS: routing, log, counts
-- ARGV: new version, field, line with its line end, the `key:` field that must exist, limit of lines
-- Reply: {'added' | 'present' | 'full', version of the key's bindings before, and now} | {'revoked'}
--include routing_log
--include counts
local before = redis.call('HGET', KEYS[1], ARGV[4])
if not before then return {'revoked'} end
local lines = redis.call('HGET', KEYS[1], ARGV[2]) or ''
if string.find('\n' .. lines, '\n' .. ARGV[3], 1, true) then return {'present', before, before} end
local _, count = string.gsub(lines, '\n', '')
if count >= tonumber(ARGV[5]) then return {'full', before, before} end
redis.call('HSET', KEYS[1], ARGV[2], lines .. ARGV[3])
add_count(KEYS[3], 'bindings', 1)
return {'added', before, log_bindings(KEYS[1], KEYS[2], ARGV[1], ARGV[4], ARGV[2])}
