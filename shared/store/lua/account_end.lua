#!lua flags=allow-oom
-- Ends the deletion of an account: removes what is left of it in its slot. UNLINK frees large values in the background.
-- For an hour its record says that it was deleted: a writer that began before must not bring anything back.
-- KEYS: account, then every other name of the account
-- Reply: 1, or 0 for an account that is not being deleted
-- Touches at most: the names in KEYS (22).
if redis.call('HEXISTS', KEYS[1], 'deleting') == 0 then return 0 end
redis.call('UNLINK', unpack(KEYS))
redis.call('HSET', KEYS[1], 'deleting', 1)
redis.call('PEXPIRE', KEYS[1], 60 * 60 * 1000)
return 1
