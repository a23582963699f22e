#!lua flags=allow-oom
-- Gives back what a fetch of a pull channel got, from one entry on: that comes again, in order, after the delay. What is
-- before the entry is not acknowledged by it, and stays the fetch's own.
-- Fenced as an ack is (channel_fetch_ack.lua). Idempotent: a repetition does not begin the delay again.
-- KEYS: channel, queue     ARGV: token, entry, delay in ms
-- Reply: {'nacked'} | {'ended'} | {'beyond'} when this fetch did not get the entry | {'absent'}
-- Touches at most: 101 entries.
--include now
--include entry_order
local MOST = 100
local kind, lease, fetch_until, nacked =
  unpack(redis.call('HMGET', KEYS[1], 'kind', 'fetch_lease', 'fetch_until', 'nacked'))
if not kind then return {'absent'} end
if lease ~= ARGV[1] then return {'ended'} end
if nacked == ARGV[2] then return {'nacked'} end
if is_after(ARGV[2], fetch_until) then return {'beyond'} end
local now = now_ms()
redis.call('HSET', KEYS[1], 'released_at_ms', now)
-- All was acked or dropped: a delay would hold back what came afterwards.
if #redis.call('XRANGE', KEYS[2], '-', fetch_until, 'COUNT', 1) == 0 then return {'nacked'} end
local before = redis.call('XRANGE', KEYS[2], '-', '(' .. ARGV[2], 'COUNT', MOST)
if #before > 0 then
  redis.call('HSET', KEYS[1], 'fetch_until', before[#before][1], 'fetched', #before)
else
  redis.call('HSET', KEYS[1], 'fetch_until', '0-0')
  redis.call('HDEL', KEYS[1], 'ack_by_ms', 'fetched')
end
redis.call('HSET', KEYS[1], 'nacked', ARGV[2], 'nacked_until_ms', now + tonumber(ARGV[3]))
return {'nacked'}
