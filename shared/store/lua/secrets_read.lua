#!lua flags=allow-oom
-- Returns the secrets that sign the webhooks of an API key or of a native channel, newest first.
-- Without any it stores the one that is offered. That stays, also when the channel of an API key ends.
-- KEYS: key     ARGV: a new secret, or '' for none
-- Reply: {'secrets', line...} as in included/signing_secrets.lua | {'revoked'}
-- Touches at most: 5 secrets.
--include now
--include signing_secrets
if redis.call('EXISTS', KEYS[1]) == 0 then return {'revoked'} end
if ARGV[1] ~= '' and redis.call('HEXISTS', KEYS[1], 'signing_secrets') == 0 then
  redis.call('HSETNX', KEYS[1], 'signing_secret', ARGV[1])
end
return add_lines({'secrets'}, secrets_of(KEYS[1], now_ms()))
