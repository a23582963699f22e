#!lua flags=allow-oom
-- Ends a webhook channel that nothing was queued for during the idle expiry, with its queue and its lease.
-- KEYS: channel, queue, receipts     ARGV: generation, idle expiry in ms
-- Reply: {'expired', notifications lost} | {'kept'} | {'absent'}
-- Touches at most: the names of the channel; Redis frees its queue beside its work.
--include end_channel
--include entries
--include now
--include entry_time
local channel = redis.call('HMGET', KEYS[1], 'generation', 'created_at_ms', 'tail')
if channel[1] ~= ARGV[1] then return {'absent'} end
local since = math.max(tonumber(channel[2] or 0), ms_of(channel[3] or '0-0'))
if now_ms() - since < tonumber(ARGV[2]) then return {'kept'} end
return {'expired', end_channel(KEYS[1], KEYS[2], KEYS[3], 'channel-expired')}
