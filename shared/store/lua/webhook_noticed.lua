#!lua flags=allow-oom
-- Removes the notices that a dispatcher has published: those at the front, if they are still there. Others that came
-- meanwhile stay.
-- KEYS: channel     ARGV: generation, the notices as they were read
-- Reply: 1, or 0 when they are gone
-- Touches at most: 1 field.
local generation, kept = unpack(redis.call('HMGET', KEYS[1], 'generation', 'notices'))
if generation ~= ARGV[1] or not kept then return 0 end
if kept == ARGV[2] then return redis.call('HDEL', KEYS[1], 'notices') end
local front = ARGV[2] .. '\n'
if string.sub(kept, 1, #front) ~= front then return 0 end
redis.call('HSET', KEYS[1], 'notices', string.sub(kept, #front + 1))
return 1
