#!lua
-- Gives a native webhook a client certificate in place of an earlier one. A failing webhook is due at once, and the config
-- version changes: the failure of an attempt that is under way must not postpone the next one.
-- KEYS: key, channel     ARGV: generation, config version, version of the certificate, chain, private key, facts (JSON)
-- Reply: 1, or 0 when there is no such webhook
-- Touches at most: 6 fields.
if redis.call('HEXISTS', KEYS[1], 'native') == 0 then return 0 end
local kind, generation = unpack(redis.call('HMGET', KEYS[2], 'kind', 'generation'))
if kind ~= 'webhook' or generation ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[2], 'config_version', ARGV[2], 'client_certificate', ARGV[3], 'client_chain', ARGV[4],
  'client_key', ARGV[5], 'client_facts', ARGV[6])
redis.call('HDEL', KEYS[2], 'next_attempt_ms')
return 1
