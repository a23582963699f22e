#!lua flags=allow-oom
-- Drops and counts what is too old in a queue.
-- KEYS: channel, queue, receipts     ARGV: the first entry id that is not too old
-- Reply: {dropped, the first entry id left or '', owner or ''}
-- Touches at most: the entries dropped, perhaps the whole queue, and their receipts (10,000).
--include receipts
--include entries
--include drop_expired
local channel = redis.call('HMGET', KEYS[1], 'owner', 'first')
local dropped = drop_expired(KEYS[1], KEYS[2], KEYS[3], channel[2], ARGV[1])
local first = first_entry(KEYS[2])
return {dropped, first and first[1] or '', channel[1] or ''}
