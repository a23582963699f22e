#!lua flags=allow-oom
-- Says of notifications that they were written to a socket. The first time counts, and a receipt that is gone,
-- or of the same event queued anew, is left alone.
-- KEYS: receipt...     ARGV: for each the place in the queue of what was sent
-- Returns 1
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
for i, receipt in ipairs(KEYS) do
  if redis.call('HGET', receipt, 'entry') == ARGV[i] then redis.call('HSETNX', receipt, 'sent', now) end
end
return 1
