#!lua flags=allow-oom
-- Gives an API key a new secret. The old one stays valid until ARGV[2]; a time that has passed ends it at once.
-- At most two secrets are valid: a third would end the first before its promised time.
-- KEYS: key, channel     ARGV: hash of the new secret, when the old one ends in ms
-- Reply: {'rotated', owner or ''} | {'in_use', when the older secret ends} | {'expired'} | {'absent'}
-- Touches at most: 5 fields.
local key = redis.call('HMGET', KEYS[1], 'secret_hash', 'old_valid_until_ms', 'expires_at_ms')
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if not key[1] then return {'absent'} end
if key[3] and tonumber(key[3]) <= now then return {'expired'} end
if key[2] and tonumber(key[2]) > now then return {'in_use', key[2]} end
redis.call('HSET', KEYS[1], 'secret_hash', ARGV[1])
if tonumber(ARGV[2]) > now then
  redis.call('HSET', KEYS[1], 'old_secret_hash', key[1], 'old_valid_until_ms', ARGV[2])
else
  redis.call('HDEL', KEYS[1], 'old_secret_hash', 'old_valid_until_ms')
end
return {'rotated', redis.call('HGET', KEYS[2], 'owner') or ''}
