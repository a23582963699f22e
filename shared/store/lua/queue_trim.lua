#!lua flags=allow-oom
-- Drops and counts a lot of what is too old in a queue; without any, of what is above its limit; without any, ends the
-- tracking of receipts above their number. The caller repeats the call for as long as there is more.
-- KEYS: channel, queue, receipts     ARGV: limit in bytes, lifetime in ms
-- Reply: {dropped above the limit, dropped as too old, 1 if there may be more, else 0, the first entry id left or '',
--         owner or ''}
-- Touches at most: 150 entries and their receipts.
--include entries
--include drop_expired
--include drop_above
--include most_receipts
--include own_limits

-- Deletes a lot of the oldest receipts above their number: without tracking they would stay 'queued'.
local function end_oldest_receipts()
  local above, prefix = redis.call('XLEN', KEYS[3]) - MOST_RECEIPTS, string.sub(KEYS[3], 1, -2) .. ':'
  if above <= 0 then return 0 end
  local oldest = redis.call('XRANGE', KEYS[3], '-', '+', 'COUNT', math.min(above, RECEIPTS_LOT))
  for _, entry in ipairs(oldest) do
    local receipt = prefix .. entry[2][2]
    if redis.call('HGET', receipt, 'entry') == entry[1] then redis.call('DEL', receipt) end
    redis.call('XDEL', KEYS[3], entry[1])
  end
  return #oldest
end

local owner, first, first_total, total, has_receipts, own_limits =
  unpack(redis.call('HMGET', KEYS[1], 'owner', 'first', 'first_total', 'total', 'receipts', 'limits'))
local limit, lifetime_ms = limits_of(own_limits, tonumber(ARGV[1]), tonumber(ARGV[2]))
local over = 0
local old, is_all = drop_expired(KEYS[1], KEYS[2], KEYS[3], has_receipts, first, lifetime_ms)
if old == 0 and first and tonumber(total) - tonumber(first_total) > limit then
  over, is_all = drop_above(KEYS[1], KEYS[2], KEYS[3], has_receipts, limit, tonumber(total), RECEIPTS_LOT)
end
local ended = old + over == 0 and end_oldest_receipts() or 0
first = first_entry(KEYS[2])
return {over, old, (old + over + ended > 0 or not is_all) and 1 or 0, first and first[1] or '', owner or ''}
