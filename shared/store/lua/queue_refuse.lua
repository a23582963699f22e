#!lua flags=allow-oom
-- Records for the owner that the client closed with 1009 (message too big): the next socket gets frames of half the
-- size, one at a time until it is past ARGV[4].
-- Drops a single notification that was refused three times: it would be refused for ever and block the queue.
-- KEYS: channel, queue, receipts
-- ARGV: owner, generation, new frame limit, last entry sent, the single entry refused or ''
-- Reply: 'remembered' | 'dropped' | 'stale'
-- Touches at most: 1 entry, 1 receipt.
--include receipts
local channel = redis.call('HMGET', KEYS[1], 'owner', 'generation', 'refused_entry', 'refused_times')
if channel[1] ~= ARGV[1] then return 'stale' end
if channel[2] ~= ARGV[2] then return 'stale' end
redis.call('HSET', KEYS[1], 'frame_limit_bytes', ARGV[3], 'refused_until', ARGV[4])
if ARGV[5] == '' then return 'remembered' end
local times = channel[3] == ARGV[5] and tonumber(channel[4]) + 1 or 1
redis.call('HSET', KEYS[1], 'refused_entry', ARGV[5], 'refused_times', times)
if times < 3 then return 'remembered' end
redis.call('HINCRBY', KEYS[1], 'dropped', redis.call('XDEL', KEYS[2], ARGV[5]))
mark_receipts(KEYS[1], KEYS[3], ARGV[5], ARGV[5], 'dropped', 'too-long-for-client')
redis.call('HDEL', KEYS[1], 'refused_entry', 'refused_times')
return 'dropped'
