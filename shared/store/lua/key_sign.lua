#!lua flags=allow-oom
-- Returns the secret that signs an API key's webhooks. The first one offered stays, also when the channel ends.
-- KEYS: key     ARGV: a new secret
-- Reply: {'secret', secret} | {'revoked'}
-- Touches at most: 1 field.
if redis.call('EXISTS', KEYS[1]) == 0 then return {'revoked'} end
redis.call('HSETNX', KEYS[1], 'signing_secret', ARGV[1])
return {'secret', redis.call('HGET', KEYS[1], 'signing_secret')}
