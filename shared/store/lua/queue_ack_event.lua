#!lua flags=allow-oom
-- Acknowledges the front of a queue up to and including one event's notification, for the owner.
-- The first notification of the event counts: others stand between it and that of a repeated publish, and may not have
-- been sent. Searches what one read may have sent.
-- KEYS: channel, queue, receipts     ARGV: owner, event id, count, bytes
-- Reply: the number acked, 0 when the event is not there, or -1 when ARGV[1] is not the owner
-- Touches at most: ARGV[3] entries, and their receipts.
--include receipts
--include read_entries
local channel = redis.call('HMGET', KEYS[1], 'owner', 'receipts')
if channel[1] ~= ARGV[1] then return -1 end
local entries = {}
read_entries(entries, KEYS[2], '-', tonumber(ARGV[3]), tonumber(ARGV[4]))
for _, entry in ipairs(entries) do
  if entry[2][2] == ARGV[2] then
    if channel[2] then mark_receipts(KEYS[1], KEYS[3], '-', entry[1], 'acked') end
    local ms, sequence = string.match(entry[1], '(%d+)-(%d+)')
    return redis.call('XTRIM', KEYS[2], 'MINID', ms .. '-' .. string.format('%.0f', sequence + 1))
  end
end
return 0
