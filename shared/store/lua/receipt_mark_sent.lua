#!lua flags=allow-oom
-- Marks receipts as sent; the first time counts. Skips a receipt that has expired, and one whose event id was queued
-- again since.
-- KEYS: receipt...     ARGV: for each the entry id of what was sent
-- Reply: 1
-- Touches at most: 500 receipts (queues.py).
--include now
local now = now_ms()
for i, receipt in ipairs(KEYS) do
  if redis.call('HGET', receipt, 'entry') == ARGV[i] then redis.call('HSETNX', receipt, 'sent', now) end
end
return 1
