#!lua flags=allow-oom
-- Adds an entry to an audit log. Also in a full Redis: what was changed is changed.
-- KEYS: log     ARGV: entries kept, their TTL in ms, then field, value...
-- Reply: 1
-- Touches at most: 1 entry, and a node of about 100 that the trim drops.
redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', unpack(ARGV, 3))
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
