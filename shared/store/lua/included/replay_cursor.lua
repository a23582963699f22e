-- Moves the cursor of a replay, in the step that appends what is behind it: a repetition of the step appends nothing
-- again, and neither does a process that another one has replaced.
-- A step is `<runner> <cursor before> <cursor after> <passed> <most pending> <most bytes> <ms of its lease>`.
-- While the queue is fuller than that, or than half of the channel's own limit, the replay waits: it must not make room by
-- dropping what comes live. Returns the reply of a step that is refused, else nil.
-- It has a function of its own for the time, as in `late`.
local function move_cursor(replay, channel, queue, step, count)
  local runner, before, after, passed, most, most_bytes, lease_ms = unpack((function()
    local words = {}
    for word in string.gmatch(step, '%S+') do words[#words + 1] = word end
    return words
  end)())
  local state, owner, cursor = unpack(redis.call('HMGET', replay, 'state', 'runner', 'cursor'))
  if state ~= 'running' or owner ~= runner then return {'fenced'} end
  if cursor ~= before then return {'moved'} end
  local kind, total, limits = unpack(redis.call('HMGET', channel, 'kind', 'total', 'limits'))
  if not kind then return {'absent'} end
  local time = redis.call('TIME')
  local until_ms = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000) + lease_ms)
  if count > 0 then
    local first = redis.call('XRANGE', queue, '-', '+', 'COUNT', 1)[1]
    local own = limits and tonumber(string.match(limits, '^%d+') or '')
    local bytes = own and math.min(tonumber(most_bytes), own / 2) or tonumber(most_bytes)
    if first and (redis.call('XLEN', queue) + count > tonumber(most) or total - first[2][12] > bytes) then
      redis.call('HSET', replay, 'runner_until_ms', until_ms, 'waits', 1)
      return {'full'}
    end
    redis.call('HINCRBY', replay, 'done', count)
  end
  redis.call('HSET', replay, 'cursor', after, 'runner_until_ms', until_ms)
  redis.call('HDEL', replay, 'waits')
  redis.call('HINCRBY', replay, 'passed', passed)
end
