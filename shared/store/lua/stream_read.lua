#!lua flags=no-writes,allow-oom
-- Reads retained events of a topic between two offsets: some of them, about so many bytes but at least one.
-- What the rule keeps no longer is not read, though it is still there: it goes with the next append.
-- KEYS: stream, state     ARGV: after this offset, until this one, most entries, bytes
-- Reply: {topic or '', entry, ...}; with fewer than the most entries there may be more behind the last one
-- Touches at most: as many entries as ARGV says (100; streams.py), and 16 that are read in vain.
--include now
local topic, age_ms = unpack(redis.call('HMGET', KEYS[2], 'topic', 'age_ms'))
local reply = {topic or ''}
if not topic then return reply end
local from, oldest_ms = '(' .. ARGV[1], now_ms() - age_ms
if tonumber(string.match(ARGV[1], '^%d+')) < oldest_ms then from = string.format('%.0f', oldest_ms) end
local count, bytes, step = tonumber(ARGV[3]), tonumber(ARGV[4]), 4
while count > 0 do
  step = math.min(16, step * 2, count)
  local page = redis.call('XRANGE', KEYS[1], from, ARGV[2], 'COUNT', step)
  for _, entry in ipairs(page) do
    bytes = bytes - #entry[2][4]
    if bytes < 0 and #reply > 1 then return reply end
    reply[#reply + 1], from = entry, '(' .. entry[1]
  end
  if #page < step then return reply end
  count = count - step
end
return reply
