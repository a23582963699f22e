#!lua
-- Enters a native channel in the routing table of its account, with its name, customer and bindings, in one step.
-- The channel has this version of its bindings already.
-- The name must be the channel's in the index, as in routing_native.lua.
-- KEYS: routing, log, counts, account, ids of channels, names
-- ARGV: new version, id, generation, its name and customer (JSON), its bindings (JSON), or '' without any, name or ''
-- Reply: 'entered' | 'unnamed' | 'gone' for an account that is being deleted
-- Touches at most: 5 fields, 2 members, and 256 log lines.
--include routing_log
--include counts
--include channel_ids
if redis.call('HEXISTS', KEYS[4], 'deleting') == 1 then return 'gone' end
if ARGV[6] ~= '' and not redis.call('ZSCORE', KEYS[6], ARGV[6] .. '\0' .. ARGV[2]) then return 'unnamed' end
local id, channel = ARGV[2], 'channel:' .. ARGV[2] .. ':' .. ARGV[3]
local fields = {'key:' .. id, ARGV[1], 'native:' .. id, ARGV[4], channel, ''}
if ARGV[5] ~= '' then fields[7], fields[8] = 'topics:' .. id, ARGV[5] end
local names = {}
for i = 1, #fields, 2 do
  count_change(KEYS[3], fields[i], redis.call('HGET', KEYS[1], fields[i]), fields[i + 1])
  redis.call('HSET', KEYS[1], fields[i], fields[i + 1])
  names[#names + 1] = fields[i]
end
index_channel(KEYS[5], channel, true)
log_change(KEYS[1], KEYS[2], ARGV[1], table.concat(names, ' '))
return 'entered'
