#!lua flags=allow-oom
-- Acknowledges the front of a queue up to and including one event's notification, for the owner.
-- The first notification of the event counts: others stand between it and that of a repeated publish, and may not have
-- been sent. Searches what one read may have sent.
-- KEYS: channel, queue, receipts     ARGV: owner, event id, count, bytes
-- Reply: {'acked', the number} | {'found', entry id} when receipts are tracked: queue_ack.lua acks it in lots
--      | {'not_found'} | {'not_owner'}
-- Touches at most: 384 entries.
--include lots
--include read_entries
local channel = redis.call('HMGET', KEYS[1], 'owner', 'receipts')
if channel[1] ~= ARGV[1] then return {'not_owner'} end
local entries = {}
read_entries(entries, KEYS[2], '-', math.min(tonumber(ARGV[3]), READ_LOT), tonumber(ARGV[4]))
for _, entry in ipairs(entries) do
  if entry[2][2] == ARGV[2] then
    if channel[2] then return {'found', entry[1]} end
    local ms, sequence = string.match(entry[1], '(%d+)-(%d+)')
    return {'acked', redis.call('XTRIM', KEYS[2], 'MINID', ms .. '-' .. string.format('%.0f', sequence + 1))}
  end
end
return {'not_found'}
