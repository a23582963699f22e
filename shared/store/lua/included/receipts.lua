--include now
-- Receipts: what became of the notifications whose publishers asked for one.
-- `{id}:receipts` maps entry ids of the queue to hashes of event ids. `{id}:receipt:<hash>` is one receipt; it has
-- the channel's hash tag, so its name may be made here. The channel's field `receipts` says that some are tracked.

-- So many entries and their receipts are removed in one step: with a name and a hash for each receipt below 512.
local RECEIPTS_LOT = 150

-- Marks the receipts of a range of entries as 'acked', or as 'dropped' with a reason, and ends their tracking.
-- Skips a receipt that has expired, and one whose event id was queued again since.
local function mark_receipts(channel, receipts, first, last, state, reason)
  local now, prefix = now_ms(), string.sub(receipts, 1, -2) .. ':'
  for _, entry in ipairs(redis.call('XRANGE', receipts, first, last, 'COUNT', RECEIPTS_LOT)) do
    local receipt = prefix .. entry[2][2]
    if redis.call('HGET', receipt, 'entry') == entry[1] then
      redis.call('HSET', receipt, state, now)
      if reason then redis.call('HSET', receipt, 'reason', reason) end
    end
    redis.call('XDEL', receipts, entry[1])
  end
  if redis.call('XLEN', receipts) == 0 then
    redis.call('DEL', receipts)
    redis.call('HDEL', channel, 'receipts')
  end
end
