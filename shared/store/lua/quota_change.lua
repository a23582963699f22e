#!lua flags=allow-oom
-- Writes and deletes fields: an account's quotas in its record, or their version in the table of all accounts.
-- A script, because a full Redis refuses a plain HSET, and an operator must be able to stop who fills it.
-- Touches at most: the fields in ARGV, at most 11.
-- KEYS: the account, or the routing table of all accounts
-- ARGV: the number of pairs, pairs of a field and its value, fields to delete
-- Reply: 1
local at = 2
for _ = 1, tonumber(ARGV[1]) do
  redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 1])
  at = at + 2
end
for i = at, #ARGV do redis.call('HDEL', KEYS[1], ARGV[i]) end
return 1
