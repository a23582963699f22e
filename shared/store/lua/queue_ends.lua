#!lua flags=allow-oom
-- Reads where a queue begins and ends, and whether it holds an entry.
-- KEYS: channel, queue     ARGV: entry id
-- Reply: {the last entry appended or '0-0', its first entry id or '', 1 if ARGV[1] is in it, else 0}
-- Touches at most: 2 entries.
--include entries
local first = first_entry(KEYS[2])
return {redis.call('HGET', KEYS[1], 'tail') or '0-0', first and first[1] or '',
  #redis.call('XRANGE', KEYS[2], ARGV[1], ARGV[1])}
