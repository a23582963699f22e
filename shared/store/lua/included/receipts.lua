-- Receipts: what became of the notifications whose publishers asked for one.
-- `{id}:receipts` maps entry ids of the queue to hashes of event ids. `{id}:receipt:<hash>` is one receipt; it has
-- the channel's hash tag, so its name may be made here.
local RECEIPT_TTL_MS = 60 * 60 * 1000

local function receipt_of(receipts, hash) return string.sub(receipts, 1, -2) .. ':' .. hash end

local function now_ms()
  local time = redis.call('TIME')
  return string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
end

-- Marks the receipts of a range of entries as 'acked', or as 'dropped' with a reason, and ends their tracking.
-- Skips a receipt that has expired, and one whose event id was queued again since.
local function mark_receipts(receipts, first, last, state, reason)
  if redis.call('EXISTS', receipts) == 0 then return end
  local now = now_ms()
  for _, entry in ipairs(redis.call('XRANGE', receipts, first, last)) do
    local receipt = receipt_of(receipts, entry[2][2])
    if redis.call('HGET', receipt, 'entry') == entry[1] then
      redis.call('HSET', receipt, state, now)
      if reason then redis.call('HSET', receipt, 'reason', reason) end
    end
    redis.call('XDEL', receipts, entry[1])
  end
  if redis.call('XLEN', receipts) == 0 then redis.call('DEL', receipts) end
end
