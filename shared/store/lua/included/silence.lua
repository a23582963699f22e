-- Notes behind the limits of a channel's queue whether nobody may deliver from it: an append reads one field beside the
-- usual ones, and wakes nobody then.
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
