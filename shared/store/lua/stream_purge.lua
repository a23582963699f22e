#!lua flags=allow-oom
-- Purges the retained log of a topic: nothing of it is to be had from now on. Its epoch becomes a later one,
-- `<random of the log>-<purges>-<random of the purge>`: a reader of an older one is told that the log was purged, and a
-- reader of a purge that Redis has lost is not taken for one of the next purge. The last offset stays, and offsets go on
-- behind it. Readers who are there are woken.
-- The entries are taken out of the log in one step, so that no reader gets a part of them, and dropped lot by lot
-- (stream_purge_lot.lua). What an earlier purge has left that was not ended goes at once.
-- KEYS: stream, state, the purged log     ARGV: random of this purge, hexadecimal
-- Reply: {} when there is no such log | {epoch, last offset}
-- Touches at most: 2 names and 5 fields.
local epoch, last = unpack(redis.call('HMGET', KEYS[2], 'epoch', 'last'))
if not epoch then return {} end
local base, purges = string.match(epoch, '^(%x+)%-?(%d*)')
epoch = string.format('%s-%.0f-%s', base, tonumber('0' .. purges) + 1, ARGV[1])
redis.call('UNLINK', KEYS[3])
-- It keeps its TTL: so it ends also when nobody drops it.
if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('RENAME', KEYS[1], KEYS[3]) end
redis.call('HSET', KEYS[2], 'epoch', epoch, 'trimmed', last, 'reason', 'purged', 'bytes', 0)
redis.call('SPUBLISH', (string.gsub(KEYS[1], ':stream:', ':stream-live:')), table.concat({'-' .. epoch, last, last}, '\0'))
return {epoch, last}
