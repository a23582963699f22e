#!lua flags=allow-oom
-- Reads the notifications of a queue behind a given entry, for the owner, and drops what is too old first.
-- The reply to a stale owner says why it lost the lease. A crash of Redis may have lost the claim itself: with ARGV[7]
-- an owner writes it again, if the lease is free or still names the owner that this claim replaced.
-- KEYS: key, channel, lease, queue, receipts
-- ARGV: owner, previous owner, generation, after, count, bytes, 1 if Redis may have lost the claim, else 0,
--       the first entry id that is not too old
-- Reply: {'read', more (0 or 1), dropped, serialization or '', entry...}
--      | {'rewound'} | {'revoked'} | {'deleted'} | {'taken_over'}
--include receipts
--include drop_expired
--include read_entries
if redis.call('EXISTS', KEYS[1]) == 0 then return {'revoked'} end
local channel = redis.call('HMGET', KEYS[2], 'generation', 'serialization')
if channel[1] ~= ARGV[3] then return {'deleted'} end
local owner = redis.call('GET', KEYS[3])
if owner ~= ARGV[1] then
  if ARGV[7] ~= '1' or (owner and owner ~= ARGV[2]) then return {'taken_over'} end
  redis.call('SET', KEYS[3], ARGV[1])
end
local dropped = drop_expired(KEYS[2], KEYS[4], KEYS[5], ARGV[8])
local reply = {'read', 0, dropped, channel[2] or ''}
local tail = redis.call('XREVRANGE', KEYS[4], '+', '-', 'COUNT', 1)[1]
if not tail or tail[1] == ARGV[4] then return reply end
local count = tonumber(ARGV[5])
read_entries(reply, KEYS[4], '(' .. ARGV[4], count, tonumber(ARGV[6]))
-- The tail stands before ARGV[4]: Redis lost entries that it had given out.
if count > 0 and #reply == 4 then return {'rewound'} end
local last = #reply == 4 and ARGV[4] or reply[#reply][1]
if last ~= tail[1] and #redis.call('XRANGE', KEYS[4], '(' .. last, '+', 'COUNT', 1) > 0 then reply[2] = 1 end
return reply
