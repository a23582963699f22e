-- The newest id that the queue has given out, '0-0' if it does not exist.
local function last_id(queue)
  if redis.call('EXISTS', queue) == 0 then return '0-0' end
  local info = redis.call('XINFO', 'STREAM', queue)
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then return info[i + 1] end
  end
end
