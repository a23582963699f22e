#!lua flags=no-writes,allow-oom
-- Reads a page of a webhook's attempts, newest first, or those of one outcome or event; none that is too old.
-- KEYS: attempts
-- ARGV: the place before which to begin (`(<id>` or `+`), how many at most, outcome or '', event id between newlines or ''
-- Reply: {id, head, event ids, facts}...
-- Touches at most: 240 attempts.
--include attempts
--include now
local LOT, MOST = 24, 10
local place, limit, outcome, event = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
local oldest = string.format('%.0f', now_ms() - ATTEMPTS_AGE_MS)
local found = {}
for _ = 1, MOST do
  local entries = redis.call('XREVRANGE', KEYS[1], place, oldest, 'COUNT', LOT)
  for _, entry in ipairs(entries) do
    local values = entry[2]
    if (outcome == '' or string.find(values[2], outcome, 1, true))
      and (event == '' or string.find(values[4], event, 1, true)) then
      found[#found + 1] = {entry[1], values[2], values[4], values[6]}
      if #found == limit then return found end
    end
  end
  if #entries < LOT then break end
  place = '(' .. entries[LOT][1]
end
return found
