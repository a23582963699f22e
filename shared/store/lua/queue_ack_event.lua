#!lua flags=allow-oom
-- Forgets the front of a queue up to and including one event's notification, for the owner only: what a client says
-- itself that it has handled. The first place of the event counts: a repeated publish may have a second one,
-- with others before it that were never sent. Only so much is looked at as one look may have sent.
-- KEYS: lease, queue, receipts     ARGV: owner, event id, count, bytes
-- Returns the number acked, 0 when the event is not there, or -1 when ARGV[1] is not the owner
--include receipts
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return -1 end
local left, bytes, from = tonumber(ARGV[3]), tonumber(ARGV[4]), '-'
local step = 8
while left > 0 and bytes >= 0 do
  step = math.min(left, step * 2)
  local entries = redis.call('XRANGE', KEYS[2], from, '+', 'COUNT', step)
  for _, entry in ipairs(entries) do
    if entry[2][2] == ARGV[2] then
      local ms, sequence = string.match(entry[1], '(%d+)-(%d+)')
      tell(KEYS[3], '-', entry[1], 'acked')
      return redis.call('XTRIM', KEYS[2], 'MINID', ms .. '-' .. string.format('%.0f', sequence + 1))
    end
    bytes = bytes - #entry[2][6]
    from = '(' .. entry[1]
  end
  if #entries < step then return 0 end
  left = left - step
end
return 0
