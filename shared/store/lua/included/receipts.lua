-- Receipts, for the scripts that queue, ack or drop: what became of the notifications whose publishers asked.
-- `{id}:receipts` holds their places in the queue and the hash of each event's id; `{id}:receipt:<hash>`, whose
-- name is made here, tells of one. It lies in the slot of the channel, since its tag is the same.
local RECEIPT_TTL_MS = 60 * 60 * 1000

local function receipt_of(receipts, hash) return string.sub(receipts, 1, -2) .. ':' .. hash end

-- Says of what stands from one place to another that it was 'acked', or 'dropped' and why. A receipt that is
-- gone is not made again, and one of the same event that was queued anew since is left alone.
local function tell(receipts, first, last, what, why)
  if redis.call('EXISTS', receipts) == 0 then return end
  local time = redis.call('TIME')
  local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
  for _, entry in ipairs(redis.call('XRANGE', receipts, first, last)) do
    local receipt = receipt_of(receipts, entry[2][2])
    if redis.call('HGET', receipt, 'entry') == entry[1] then
      redis.call('HSET', receipt, what, now)
      if why then redis.call('HSET', receipt, 'why', why) end
    end
    redis.call('XDEL', receipts, entry[1])
  end
  if redis.call('XLEN', receipts) == 0 then redis.call('DEL', receipts) end
end
