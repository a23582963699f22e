#!lua flags=allow-oom
-- Gives a channel the version of its bindings, in place of the version that the caller has seen there.
-- A channel has its generation for a version until it gets its first: versions never come back, also not in the next
-- generation, whose first version is made with its field in the routing table.
-- Touches at most: 3 fields.
-- KEYS: channel     ARGV: the version seen, the version in the routing table, read after it
-- Reply: the version that the channel has now, or nil without a channel
local channel = redis.call('HMGET', KEYS[1], 'generation', 'bindings_version')
local version = channel[2] or channel[1]
if version ~= ARGV[1] or version == ARGV[2] then return version end
redis.call('HSET', KEYS[1], 'bindings_version', ARGV[2])
return ARGV[2]
