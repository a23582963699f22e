#!lua flags=no-writes,allow-oom
-- Reads the version of the data layout: the first step of every process, and a script, so that a user of Redis
-- without the right to run scripts finds out before it serves.
-- KEYS: version     ARGV: none
-- Reply: the version, or false in an empty Redis
-- Touches at most: 1 name.
return redis.call('GET', KEYS[1])
