-- Gives a routing table its next version and logs which fields (joined by blanks) that version changed.
-- Versions are random: a counter could repeat a number after Redis lost its last writes.
-- The log costs at most an eighth of reading the whole table, and is bounded because routing_changes walks it, in pages.
local MOST_CHANGES, MOST_TRIMMED = 4096, 256

local function log_change(routing, log, version, fields)
  local before = redis.call('HGET', routing, 'version') or ''
  redis.call('HSET', routing, 'version', version)
  local length = redis.call('LPUSH', log, before .. ' ' .. version .. ' ' .. fields)
  local kept = math.max(64, math.min(MOST_CHANGES, math.floor(redis.call('HLEN', routing) / 8)))
  -- A lot at a time: the table may have become much smaller.
  if length > kept then redis.call('LTRIM', log, 0, math.max(kept, length - MOST_TRIMMED) - 1) end
  redis.call('EXPIRE', log, 3600)
end

-- Does the same for fields of an API key's bindings, which get that version too; returns it.
-- A key that was revoked has no bindings, and gets none.
local function log_bindings(routing, log, version, key_field, fields)
  if redis.call('HEXISTS', routing, key_field) == 1 then
    redis.call('HSET', routing, key_field, version)
    fields = fields .. ' ' .. key_field
  end
  log_change(routing, log, version, fields)
  return version
end
