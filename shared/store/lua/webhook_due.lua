#!lua flags=no-writes,allow-oom
-- Reads whether a webhook channel has a notification that may be sent now, and since when: the latest of when it was
-- queued, when the next attempt became due, and when the previous batch was acked. Reads too whether there are notices
-- that are not published yet (included/notices.lua).
-- KEYS: key, channel, queue     ARGV: generation
-- Reply: {'due', '1' with notices or '', owner or '', failed attempts, since in ms} | {'not_due', '1' or ''} | {'absent'}
-- Touches at most: 1 entry.
--include entries
--include entry_time
--include now
local channel = redis.call('HMGET', KEYS[2], 'generation', 'next_attempt_ms', 'failed_attempts', 'acked_ms', 'owner',
  'paused', 'disabled', 'notices')
if channel[1] ~= ARGV[1] then return {'absent'} end
local noted = channel[8] and '1' or ''
if channel[6] or channel[7] then return {'not_due', noted} end
local first = first_entry(KEYS[3])
if not first then return {'not_due', noted} end
local key_expires, now = redis.call('HGET', KEYS[1], 'expires_at_ms'), now_ms()
if key_expires and tonumber(key_expires) <= now then return {'not_due', noted} end
if channel[2] and tonumber(channel[2]) > now then return {'not_due', noted} end
local since = math.max(ms_of(first[1]), tonumber(channel[2] or 0), tonumber(channel[4] or 0))
return {'due', noted, channel[5] or '', channel[3] or '0', string.format('%.0f', since)}
