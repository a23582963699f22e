#!lua flags=allow-oom
-- Ends a native channel whose creation did not end in time: its gateway died, and no client knows the channel.
-- KEYS: channel, queue, receipts     ARGV: generation, how long a creation may take in ms
-- Reply: 1, or 0 when it stays
-- Touches at most: the names of the channel.
--include end_channel
--include now
local generation, unfinished, created = unpack(redis.call('HMGET', KEYS[1], 'generation', 'unfinished', 'created_at_ms'))
if generation ~= ARGV[1] or not unfinished or now_ms() - tonumber(created) < tonumber(ARGV[2]) then return 0 end
end_channel(KEYS[1], KEYS[2], KEYS[3], 'channel-deleted')
return 1
