#!lua
-- Adds one line to a field of a routing table that is a list of lines.
-- KEYS: routing, log
-- ARGV: new version, field, line with its line end, field that must exist, limit of lines
-- Reply: 'added' | 'present' | 'full' | 'revoked' when that field does not exist
--include routing_log
if redis.call('HEXISTS', KEYS[1], ARGV[4]) == 0 then return 'revoked' end
local lines = redis.call('HGET', KEYS[1], ARGV[2]) or ''
if string.find('\n' .. lines, '\n' .. ARGV[3], 1, true) then return 'present' end
local _, count = string.gsub(lines, '\n', '')
if count >= tonumber(ARGV[5]) then return 'full' end
redis.call('HSET', KEYS[1], ARGV[2], lines .. ARGV[3])
log_change(KEYS[1], KEYS[2], ARGV[1], ARGV[2])
return 'added'
