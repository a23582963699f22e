#!lua flags=allow-oom
-- Reads the notifications of a queue behind a given entry, for the owner. Gives out none that is too old: it drops a lot
-- of them instead, and the caller repeats the call.
-- The reply to a stale owner says why it lost the lease. A crash of Redis may have lost the claim itself: with ARGV[7]
-- an owner writes it again, if the lease is free, or names the owner that this claim replaced, or one that had claimed
-- before: Redis was restored from a copy that is older than several claims.
-- An owner that takes notifications confirms a lease that another poll contests; one that takes none is ending, and
-- gets more time (lease_contest.lua).
-- A tail before the given entry says that Redis lost entries that it had given out: the tail never goes back by itself.
-- KEYS: key, channel, queue, receipts
-- ARGV: owner, previous owner, generation, after, count, bytes, 1 if Redis may have lost the claim, else 0,
--       lifetime in ms, the time of the claim in ms
-- Reply: {'read', more (0 or 1), serialization or '', the last entry appended or '0-0', entry...}
--      | {'dropped', the number dropped as too old} | {'rewound'} | {'revoked'} | {'deleted'} | {'paused'} | {'taken_over'}
-- Touches at most: 385 entries, or 150 that are too old with their receipts.
--include contest
--include entry_order
--include entries
--include drop_expired
--include lots
--include own_limits
--include read_entries
local generation, owner, serialization, tail, first, has_receipts,
  contested_until_ms, own_limits, paused = unpack(redis.call('HMGET', KEYS[2],
  'generation', 'owner', 'serialization', 'tail', 'first', 'receipts', 'contested_until_ms', 'limits', 'paused'))
if not generation and redis.call('EXISTS', KEYS[1]) == 0 then return {'revoked'} end
if generation ~= ARGV[3] then return {'deleted'} end
if paused then return {'paused'} end
if owner ~= ARGV[1] then
  if ARGV[7] ~= '1' then return {'taken_over'} end
  if owner and owner ~= ARGV[2] then
    local claimed_ms = tonumber(redis.call('HGET', KEYS[2], 'claimed_ms') or math.huge)
    if claimed_ms >= tonumber(ARGV[9]) then return {'taken_over'} end
  end
  redis.call('HSET', KEYS[2], 'owner', ARGV[1], 'claimed_ms', ARGV[9])
end

local after, count = ARGV[4], math.min(tonumber(ARGV[5]), READ_LOT)
if contested_until_ms and count > 0 then
  redis.call('HDEL', KEYS[2], 'contested_until_ms')
elseif contested_until_ms then
  contest(KEYS[2])
end
tail = tail or '0-0'
if is_after(after, tail) then return {'rewound'} end
local reply = {'read', 0, serialization or '', tail}
if after == tail then return reply end
if count > 0 then
  local _, lifetime_ms = limits_of(own_limits, 0, tonumber(ARGV[8]))
  local dropped = drop_expired(KEYS[2], KEYS[3], KEYS[4], has_receipts, first, lifetime_ms)
  if dropped > 0 then return {'dropped', dropped} end
end
local is_at_end = read_entries(reply, KEYS[3], '(' .. after, count, tonumber(ARGV[6]))
local last = #reply > 4 and reply[#reply][1] or after
if not is_at_end and last ~= tail and #redis.call('XRANGE', KEYS[3], '(' .. last, '+', 'COUNT', 1) > 0 then
  reply[2] = 1
end
return reply
