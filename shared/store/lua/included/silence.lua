-- Notes behind the limits of a channel's queue whether the channel is silent, so paused or disabled: an append reads one
-- field beside the usual ones, and then sends no wakeup.
local function set_silent(channel, limits, is_silent)
  limits = string.gsub(limits or ' ', 'p$', '')
  if is_silent then
    redis.call('HSET', channel, 'limits', limits .. 'p')
  elseif limits == ' ' then
    redis.call('HDEL', channel, 'limits')
  else
    redis.call('HSET', channel, 'limits', limits)
  end
end
