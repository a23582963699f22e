#!lua flags=allow-oom
-- Drops the lines that begin with a text from a field of an account's table that is a list of lines.
-- KEYS: table, route changes     ARGV: new version, field, beginning; with its line end it is one whole line
-- Returns how many lines went; without any, nothing changes
local lines = redis.call('HGET', KEYS[1], ARGV[2]) or ''
local stay, gone = {}, 0
for line in string.gmatch(lines, '[^\n]*\n') do
  if string.sub(line, 1, #ARGV[3]) == ARGV[3] then gone = gone + 1 else stay[#stay + 1] = line end
end
if gone == 0 then return 0 end
if #stay == 0 then
  redis.call('HDEL', KEYS[1], ARGV[2])
else
  redis.call('HSET', KEYS[1], ARGV[2], table.concat(stay))
end
local before = redis.call('HGET', KEYS[1], 'version') or ''
redis.call('HSET', KEYS[1], 'version', ARGV[1])
redis.call('LPUSH', KEYS[2], before .. ' ' .. ARGV[1] .. ' ' .. ARGV[2])
local kept = math.max(64, math.min(4096, math.floor(redis.call('HLEN', KEYS[1]) / 8)))
redis.call('LTRIM', KEYS[2], 0, kept - 1)
redis.call('EXPIRE', KEYS[2], 3600)
return gone
