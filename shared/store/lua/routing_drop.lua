#!lua flags=allow-oom
-- Deletes fields of a routing table. Without any of them it changes nothing.
-- KEYS: routing, log     ARGV: new version, field...
-- Reply: the number deleted
--include routing_log
local deleted = {}
for i = 2, #ARGV do
  if redis.call('HDEL', KEYS[1], ARGV[i]) == 1 then deleted[#deleted + 1] = ARGV[i] end
end
if #deleted > 0 then log_change(KEYS[1], KEYS[2], ARGV[1], table.concat(deleted, ' ')) end
return #deleted
