#!lua flags=allow-oom
-- Deletes fields of a routing table. Without any of them it changes nothing.
-- Touches at most: the fields in ARGV, at most 7, 1 member, and 256 log lines.
-- KEYS: routing, log, counts, ids of channels
-- ARGV: new version, the `key:` field if the fields are its bindings, else '', field...
-- Reply: {the number deleted, version of the key's bindings before or '', and now}
--include routing_log
--include counts
--include channel_ids
local before = ARGV[2] ~= '' and redis.call('HGET', KEYS[1], ARGV[2]) or ''
local deleted = {}
for i = 3, #ARGV do
  local old = redis.call('HGET', KEYS[1], ARGV[i])
  if old then
    redis.call('HDEL', KEYS[1], ARGV[i])
    count_change(KEYS[3], ARGV[i], old, false)
    index_channel(KEYS[4], ARGV[i], false)
    deleted[#deleted + 1] = ARGV[i]
  end
end
local fields = table.concat(deleted, ' ')
if before ~= '' and #deleted > 0 then
  return {#deleted, before, log_bindings(KEYS[1], KEYS[2], ARGV[1], ARGV[2], fields)}
end
if #deleted > 0 then log_change(KEYS[1], KEYS[2], ARGV[1], fields) end
return {#deleted, before, before}
