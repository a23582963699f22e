#!lua
-- Writes one field of a routing table.
-- An API key's fields are written only while its `key:` field exists: a revocation must leave none behind.
-- Touches at most: 2 fields, 1 member and 256 log lines.
-- Nothing new is written for an account that is being deleted.
-- KEYS: routing, log, counts, account, ids of channels
-- ARGV: new version, field, value, the `key:` field that must exist or '',
--       1 if the field is its channel or one of its bindings, else 0
-- Reply: {'set', version of the key's bindings before or '', and now} | {'revoked'}
--include routing_log
--include counts
--include channel_ids
local before = ''
if ARGV[4] ~= '' then before = redis.call('HGET', KEYS[1], ARGV[4]) end
if not before then return {'revoked'} end
local old = redis.call('HGET', KEYS[1], ARGV[2])
if old == ARGV[3] then return {'set', before, before} end
if redis.call('HEXISTS', KEYS[4], 'deleting') == 1 then return {'revoked'} end
redis.call('HSET', KEYS[1], ARGV[2], ARGV[3])
count_change(KEYS[3], ARGV[2], old, ARGV[3])
index_channel(KEYS[5], ARGV[2], true)
if ARGV[5] == '1' then return {'set', before, log_bindings(KEYS[1], KEYS[2], ARGV[1], ARGV[4], ARGV[2])} end
log_change(KEYS[1], KEYS[2], ARGV[1], ARGV[2])
return {'set', before, before}
