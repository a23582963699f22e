#!lua flags=allow-oom
-- Makes ARGV[1] the owner of a channel of one kind. Without ARGV[3] it takes the lease over from any other owner.
-- With it, only from that one: the caller judged it by its heartbeat, which lies in another slot, and an owner that
-- has claimed since keeps the lease.
-- KEYS: key, channel, queue     ARGV: owner, kind, optionally the owner that the caller found dead or ''
-- `claimed_ms` tells a claim that Redis has lost from a newer one (queue_read.lua). A webhook's lease is as short as a
-- request, and is never claimed back. An owner whose queue is empty need not read it.
-- Reply: {'claimed', previous owner or '', generation, frame limit or '', refused until or '', now in ms or '0',
--         '' if something is pending, else the last entry appended or '0-0', serialization or ''}
--      | {'held', owner} | {'revoked'} | {'absent'} | {'paused'}
-- Touches at most: 9 fields.
local kind, generation, previous, frame_limit, refused_until, paused, tail, serialization =
  unpack(redis.call('HMGET', KEYS[2], 'kind', 'generation', 'owner', 'frame_limit_bytes', 'refused_until', 'paused',
    'tail', 'serialization'))
if not kind and redis.call('EXISTS', KEYS[1]) == 0 then return {'revoked'} end
if kind ~= ARGV[2] then return {'absent'} end
if paused then return {'paused'} end
previous = previous or ''
if ARGV[3] and previous ~= ARGV[3] then return {'held', previous} end
local claimed_ms, end_of_empty = '0', ''
if kind == 'webhook' then
  redis.call('HSET', KEYS[2], 'owner', ARGV[1])
else
-- Included here: a webhook's claim needs no time.
--include now
  claimed_ms = string.format('%.0f', now_ms())
  redis.call('HSET', KEYS[2], 'owner', ARGV[1], 'claimed_ms', claimed_ms)
  if redis.call('XLEN', KEYS[3]) == 0 then end_of_empty = tail or '0-0' end
end
return {'claimed', previous, generation, frame_limit or '', refused_until or '', claimed_ms, end_of_empty,
  serialization or ''}
