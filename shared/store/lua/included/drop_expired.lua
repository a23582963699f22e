-- Drops and counts the entries of a queue before `oldest`; returns their number. Needs receipts.lua.
local function drop_expired(channel, queue, receipts, oldest)
  local dropped = redis.call('XTRIM', queue, 'MINID', oldest)
  if dropped > 0 then
    if redis.call('EXISTS', channel) == 1 then redis.call('HINCRBY', channel, 'dropped', dropped) end
    mark_receipts(receipts, '-', '(' .. oldest, 'dropped', 'too-old')
  end
  return dropped
end
