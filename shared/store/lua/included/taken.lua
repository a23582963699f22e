-- What a webhook with several requests at once has taken from its queue: a sorted set of marks
-- `<entry> <failed attempts> <ms of the first failure> <refusals for its size> <ms for which its attempt was planned>`, by
-- the ms of the next attempt, or UNDER_WAY. Every entry up to the channel's `taken_until` that is still in the queue has
-- one, so an owner finds what another one has left.
local UNDER_WAY = '9000000000000000'
-- While so many wait for their retries, no more are taken: each costs memory and a place in the set.
local MOST_TAKEN = 1000

local function mark_of(entry_id, failed_attempts, first_ms, refusals, planned_ms)
  return string.format('%s %.0f %.0f %.0f %.0f', entry_id, failed_attempts, first_ms, refusals, planned_ms)
end

-- Forgets all of it, for a queue that is empty or goes on in order.
local function forget_taken(channel, taken)
  redis.call('UNLINK', taken)
  redis.call('HDEL', channel, 'taken_until', 'hold_ms', 'asked_ms', 'planned_ms', 'hurry', 'anew_ms')
end
