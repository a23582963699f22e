#!lua flags=allow-oom
-- The secret with which an API key's webhooks are signed; the first one offered stays, also when the channel goes.
-- KEYS: key     ARGV: a new secret
-- Returns {'secret', secret} | {'revoked'}
if redis.call('EXISTS', KEYS[1]) == 0 then return {'revoked'} end
redis.call('HSETNX', KEYS[1], 'signing_secret', ARGV[1])
return {'secret', redis.call('HGET', KEYS[1], 'signing_secret')}
