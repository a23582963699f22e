#!lua
-- Writes the name and the customer of a native channel in its account's routing table, as its record has them. The
-- name must be the channel's in the index, which lies beside the table: so no two channels of a table have one name.
-- An older revision of the record changes nothing: its writer was slow, and a newer one is there already.
-- KEYS: routing, log, counts, account, names
-- ARGV: new version, id, name or '', revision, the field's value
-- Reply: {'set', version of the channel's bindings before, and now} | {'revoked'} without the channel
--      | {'unnamed'} when the name is not its own
-- Touches at most: 3 fields, 1 member, and 256 log lines.
--include routing_log
local id, key_field, field = ARGV[2], 'key:' .. ARGV[2], 'native:' .. ARGV[2]
local before = redis.call('HGET', KEYS[1], key_field)
if not before or redis.call('HEXISTS', KEYS[4], 'deleting') == 1 then return {'revoked'} end
local old = redis.call('HGET', KEYS[1], field)
if old == ARGV[5] then return {'set', before, before} end
if old and tonumber(string.match(old, ',(%d+)%]$') or 0) > tonumber(ARGV[4]) then return {'set', before, before} end
if ARGV[3] ~= '' and not redis.call('ZSCORE', KEYS[5], ARGV[3] .. '\0' .. id) then return {'unnamed'} end
redis.call('HSET', KEYS[1], field, ARGV[5])
return {'set', before, log_bindings(KEYS[1], KEYS[2], ARGV[1], key_field, field)}
