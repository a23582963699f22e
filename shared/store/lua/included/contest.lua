--include now
-- Gives the owner of a lease a second by Redis' clock, until which it may confirm the lease (lease_contest.lua).
local CONTEST_MS = 1000

local function contest(channel) redis.call('HSET', channel, 'contested_until_ms', now_ms() + CONTEST_MS) end
