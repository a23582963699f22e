#!lua flags=allow-oom
-- Ends a channel that has had no socket for too long, with its queue and its lease; judges everything anew.
-- The caller has looked at the owner's heartbeat, which lies in another slot: a claim made since stops this.
-- KEYS: channel, lease, queue, receipts
-- ARGV: generation, owner that was seen dead or '', its last heartbeat in ms or 0, now in ms, idle expiry in ms
-- Returns {'expired', notifications lost} | {'kept'} | {'absent'}
--include receipts
local channel = redis.call('HMGET', KEYS[1], 'generation', 'created_at_ms', 'released_at_ms')
if channel[1] ~= ARGV[1] then return {'absent'} end
if (redis.call('GET', KEYS[2]) or '') ~= ARGV[2] then return {'kept'} end
local since = math.max(tonumber(channel[2]), tonumber(channel[3] or 0), tonumber(ARGV[3]))
if tonumber(ARGV[4]) - since < tonumber(ARGV[5]) then return {'kept'} end
local lost = redis.call('XLEN', KEYS[3])
tell(KEYS[4], '-', '+', 'dropped', 'channel-expired')
redis.call('DEL', KEYS[1], KEYS[2], KEYS[3], KEYS[4])
return {'expired', lost}
