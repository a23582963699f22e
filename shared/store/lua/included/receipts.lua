-- Receipts: what became of the notifications whose publishers asked for one.
-- `{id}:receipts` maps entry ids of the queue to hashes of event ids. `{id}:receipt:<hash>` is one receipt; it has
-- the channel's hash tag, so its name may be made here. The channel's field `receipts` says that some are tracked.

-- Marks the receipts of a range of entries as 'acked', or as 'dropped' with a reason, and ends their tracking.
-- Skips a receipt that has expired, and one whose event id was queued again since.
local function mark_receipts(channel, receipts, first, last, state, reason)
  local time, prefix = redis.call('TIME'), string.sub(receipts, 1, -2) .. ':'
  for _, entry in ipairs(redis.call('XRANGE', receipts, first, last)) do
    local receipt = prefix .. entry[2][2]
    if redis.call('HGET', receipt, 'entry') == entry[1] then
      redis.call('HSET', receipt, state, time[1] * 1000 + math.floor(time[2] / 1000))
      if reason then redis.call('HSET', receipt, 'reason', reason) end
    end
    redis.call('XDEL', receipts, entry[1])
  end
  if redis.call('XLEN', receipts) == 0 then
    redis.call('DEL', receipts)
    redis.call('HDEL', channel, 'receipts')
  end
end
