#!lua flags=allow-oom
-- Gives an API key a new secret beside the one it has, which ends at a given time: now or before is at once.
-- Never more than two are valid: with a third, whoever holds the first would be cut off before its time.
-- KEYS: key, lease     ARGV: hash of the new secret, when the old one ends in ms, now in ms
-- Returns {'rotated', owner or ''} | {'in use', when the older secret ends} | {'expired'} | {'absent'}
local found = redis.call('HMGET', KEYS[1], 'secret_hash', 'old_valid_until_ms', 'expires_at_ms')
local now = tonumber(ARGV[3])
if not found[1] then return {'absent'} end
if found[3] and tonumber(found[3]) <= now then return {'expired'} end
if found[2] and tonumber(found[2]) > now then return {'in use', found[2]} end
redis.call('HSET', KEYS[1], 'secret_hash', ARGV[1])
if tonumber(ARGV[2]) > now then
  redis.call('HSET', KEYS[1], 'old_secret_hash', found[1], 'old_valid_until_ms', ARGV[2])
else
  redis.call('HDEL', KEYS[1], 'old_secret_hash', 'old_valid_until_ms')
end
return {'rotated', redis.call('GET', KEYS[2]) or ''}
