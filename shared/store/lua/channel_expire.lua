#!lua flags=allow-oom
-- Ends a channel that has had no socket for the idle expiry, with its queue and its lease.
-- The caller read the owner's heartbeat, which lies in another slot. The script compares the owner again: a socket that
-- has claimed the channel since must not lose it.
-- Another Redis may have stamped the heartbeat: its clock may be behind by 2 s.
-- KEYS: channel, queue, receipts
-- ARGV: generation, owner that the caller found dead or '', its last heartbeat in ms or 0, idle expiry in ms
-- Reply: {'expired', notifications lost} | {'kept'} | {'absent'}
-- Touches at most: the names of the channel; Redis frees its queue beside its work.
--include end_channel
--include now
local CLOCKS_APART_MS = 2000
local channel = redis.call('HMGET', KEYS[1], 'generation', 'created_at_ms', 'released_at_ms', 'owner')
if channel[1] ~= ARGV[1] then return {'absent'} end
if (channel[4] or '') ~= ARGV[2] then return {'kept'} end
local last_heartbeat = tonumber(ARGV[3]) > 0 and ARGV[3] + CLOCKS_APART_MS or 0
local since = math.max(tonumber(channel[2] or 0), tonumber(channel[3] or 0), last_heartbeat)
if now_ms() - since < tonumber(ARGV[4]) then return {'kept'} end
return {'expired', end_channel(KEYS[1], KEYS[2], KEYS[3], 'channel-expired')}
