#!lua
-- Adds one line to a field of an account's table that is a list of lines, as routing_set would write it.
-- KEYS: table, route changes
-- ARGV: new version, field, line with its line end, field that must be there, most lines
-- Returns 'added' | 'present' | 'full' | 'revoked', when that field is not there
if redis.call('HEXISTS', KEYS[1], ARGV[4]) == 0 then return 'revoked' end
local lines = redis.call('HGET', KEYS[1], ARGV[2]) or ''
if string.find('\n' .. lines, '\n' .. ARGV[3], 1, true) then return 'present' end
local _, count = string.gsub(lines, '\n', '')
if count >= tonumber(ARGV[5]) then return 'full' end
local before = redis.call('HGET', KEYS[1], 'version') or ''
redis.call('HSET', KEYS[1], 'version', ARGV[1], ARGV[2], lines .. ARGV[3])
redis.call('LPUSH', KEYS[2], before .. ' ' .. ARGV[1] .. ' ' .. ARGV[2])
local kept = math.max(64, math.min(4096, math.floor(redis.call('HLEN', KEYS[1]) / 8)))
redis.call('LTRIM', KEYS[2], 0, kept - 1)
redis.call('EXPIRE', KEYS[2], 3600)
return 'added'
