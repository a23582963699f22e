#!lua flags=allow-oom
-- Drops and counts what is too old in a queue.
-- KEYS: channel, queue, receipts, lease     ARGV: the first entry id that is not too old
-- Reply: {dropped, the first entry id left or '', owner or ''}
--include receipts
--include drop_expired
--include entries
local dropped = drop_expired(KEYS[1], KEYS[2], KEYS[3], ARGV[1])
local first = first_entry(KEYS[2])
return {dropped, first and first[1] or '', redis.call('GET', KEYS[4]) or ''}
