#!lua flags=allow-oom
-- Reads where a queue begins and ends, and whether it holds an entry.
-- KEYS: queue     ARGV: entry id
-- Reply: {the newest id it has given out or '0-0', its first entry id or '', 1 if ARGV[1] is in it, else 0}
--include entries
--include last_id
local first = first_entry(KEYS[1])
return {last_id(KEYS[1]), first and first[1] or '', #redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])}
