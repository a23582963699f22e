-- Removes the entries of a queue before `keep`, at most `lot` of them: others wait while Redis runs the script.
-- Returns the number, and whether none is left before `keep`.
-- XTRIM stops at a limit only between the nodes of a stream. A node has at most 100 entries, and `lot` must be larger:
-- so where the first command stopped early enough, the second one, which is exact, has one node to look at.
local NODE = 100
local function trim_front(queue, keep, lot)
  local count = redis.call('XTRIM', queue, 'MINID', '~', keep, 'LIMIT', lot)
  if count > lot - NODE then return count, false end
  return count + redis.call('XTRIM', queue, 'MINID', keep), true
end
