#!lua flags=no-writes,allow-oom
-- Reads retained events of a topic between two offsets: some of them, about so many bytes but at least one.
-- What the rule keeps no longer is not read, though it is still there: it goes with the next append.
-- KEYS: stream, state     ARGV: after this offset, until this one, most entries, bytes
-- Reply: {topic or '', entry, ...}; with fewer than the most entries there may be more behind the last one
-- Touches at most: as many entries as ARGV says (100; streams.py), and 16 that are read in vain.
--include now
--include read_retained
local topic, age_ms = unpack(redis.call('HMGET', KEYS[2], 'topic', 'age_ms'))
local reply = {topic or ''}
if not topic then return reply end
local from, oldest_ms = '(' .. ARGV[1], now_ms() - age_ms
if tonumber(string.match(ARGV[1], '^%d+')) < oldest_ms then from = string.format('%.0f', oldest_ms) end
read_retained(reply, KEYS[1], from, ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]))
return reply
