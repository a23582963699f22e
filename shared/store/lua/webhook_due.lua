#!lua flags=no-writes,allow-oom
-- Reads whether a webhook channel has a notification that may be sent now, and since when: the latest of when it was
-- queued, when the next attempt became due, and when the previous batch was acked. Reads too whether there are notices
-- that are not published yet (included/notices.lua).
-- With several requests at once, what was taken is due by its own time, and the others are behind it (taken.lua).
-- KEYS: key, channel, queue, taken     ARGV: generation
-- Reply: {'due', '1' with notices or '', owner or '', failed attempts, since in ms} | {'not_due', '1' or ''} | {'absent'}
-- Touches at most: 2 entries and 2 marks.
--include entries
--include entry_time
--include now
--include taken
local channel = redis.call('HMGET', KEYS[2], 'generation', 'next_attempt_ms', 'failed_attempts', 'acked_ms', 'owner',
  'paused', 'disabled', 'notices', 'taken_until', 'hold_ms', 'hurry')
if channel[1] ~= ARGV[1] then return {'absent'} end
local noted = channel[8] and '1' or ''
if channel[6] or channel[7] then return {'not_due', noted} end
local first = first_entry(KEYS[3])
if not first then return {'not_due', noted} end
local key_expires, now = redis.call('HGET', KEYS[1], 'expires_at_ms'), now_ms()
if key_expires and tonumber(key_expires) <= now then return {'not_due', noted} end
if channel[2] and tonumber(channel[2]) > now then return {'not_due', noted} end
local entry_id, planned_ms = first[1], tonumber(channel[2] or 0)
if channel[9] and not channel[11] then
  local function next_taken(from, to)
    return unpack(redis.call('ZRANGE', KEYS[4], from, to, 'BYSCORE', 'LIMIT', 0, 1, 'WITHSCORES'))
  end
  local mark, ms = next_taken('-inf', now)
  -- Under way: with an owner that has died they are due.
  if not mark then mark, ms = next_taken(UNDER_WAY, '+inf'), 0 end
  if mark then
    entry_id, planned_ms = string.match(mark, '^%S+'), tonumber(ms)
  else
    local behind = redis.call('XRANGE', KEYS[3], '(' .. channel[9], '+', 'COUNT', 1)[1]
    if not behind or tonumber(channel[10] or 0) > now then return {'not_due', noted} end
    entry_id, planned_ms = behind[1], tonumber(channel[10] or 0)
  end
end
local since = math.max(ms_of(entry_id), planned_ms, tonumber(channel[4] or 0))
return {'due', noted, channel[5] or '', channel[3] or '0', string.format('%.0f', since)}
