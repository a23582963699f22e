#!lua flags=allow-oom
-- Gives the front of a pull channel's queue to one fetch. What it got is its own until it is acked or nacked, or until
-- the channel's time for acks is over, by Redis' clock. Meanwhile another fetch is refused, or it would overtake this one.
-- The token of the last fetch that got something stays: its ack counts also after the time-out, until another one gets
-- something (channel_fetch_ack.lua).
-- Gives out nothing that is too old: it drops a lot of it instead, and the caller repeats the call. Gives out nothing
-- from an entry on that was nacked with a delay, before that is over.
-- The idle time of the channel begins again with each fetch, also with one that finds nothing.
-- allow-oom: a full Redis would otherwise refuse what empties it.
-- KEYS: channel, queue, receipts
-- ARGV: token, count, bytes, lifetime in ms, time for acks in ms of a channel without one of its own
-- Reply: {'fetched', ack by in ms, entry...} | {'empty', ms until what was nacked comes again, or 0} | {'busy'}
--      | {'dropped', the number dropped as too old} | {'paused'} | {'other_kind'} | {'absent'}
-- Touches at most: 102 entries, or 150 that are too old with their receipts.
--include now
--include entry_order
--include entries
--include drop_expired
--include own_limits
--include read_entries
local MOST = 100
local kind, unfinished, paused, fetch_until, ack_by, nacked, nacked_until, ack_timeout, first, has_receipts, own_limits =
  unpack(redis.call('HMGET', KEYS[1], 'kind', 'unfinished', 'paused', 'fetch_until', 'ack_by_ms', 'nacked',
    'nacked_until_ms', 'ack_timeout_ms', 'first', 'receipts', 'limits'))
if not kind or unfinished then return {'absent'} end
if kind ~= 'pull' then return {'other_kind'} end
if paused then return {'paused'} end
local now = now_ms()
if ack_by and tonumber(ack_by) > now then
  -- The queue may have dropped all that was fetched: too old, or above the limit.
  local left = first_entry(KEYS[2])
  if left and not is_after(left[1], fetch_until) then return {'busy'} end
end
redis.call('HSET', KEYS[1], 'released_at_ms', now)
local _, lifetime_ms = limits_of(own_limits, 0, tonumber(ARGV[4]))
local dropped = drop_expired(KEYS[1], KEYS[2], KEYS[3], has_receipts, first, lifetime_ms)
if dropped > 0 then return {'dropped', dropped} end

local found, wait_ms = {}, nacked_until and tonumber(nacked_until) - now or 0
read_entries(found, KEYS[2], '-', math.min(tonumber(ARGV[2]), MOST), tonumber(ARGV[3]))
local reply = {'fetched', now + tonumber(ack_timeout or ARGV[5])}
for _, entry in ipairs(found) do
  if wait_ms > 0 and (entry[1] == nacked or is_after(entry[1], nacked)) then break end
  reply[#reply + 1] = entry
end
if #reply == 2 then return {'empty', #found > 0 and wait_ms or 0} end
redis.call('HSET', KEYS[1], 'fetch_lease', ARGV[1], 'fetch_until', reply[#reply][1], 'ack_by_ms', reply[2],
  'fetched', #reply - 2)
if nacked and wait_ms <= 0 then redis.call('HDEL', KEYS[1], 'nacked', 'nacked_until_ms') end
return reply
