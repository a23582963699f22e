--include now
-- Notices for the account of a native webhook: lines `<number> <ms> <kind> <JSON>` in the channel's hash, until a
-- dispatcher has published them (webhook_noticed.lua). The number makes the event's id: a notice that is published twice
-- has one id. Of more than 16 the newest stay.
local MOST_NOTICES = 16
local function add_notice(channel, kind, json)
  local line = string.format('%.0f %.0f %s %s', redis.call('HINCRBY', channel, 'noticed', 1), now_ms(), kind, json)
  local kept = redis.call('HGET', channel, 'notices')
  if kept then
    if select(2, string.gsub(kept, '\n', '')) + 1 >= MOST_NOTICES then kept = string.match(kept, '\n(.*)$') end
    line = kept .. '\n' .. line
  end
  redis.call('HSET', channel, 'notices', line)
end
