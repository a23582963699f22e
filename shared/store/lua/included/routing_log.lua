-- Gives a routing table its next version and logs which fields (joined by blanks) that version changed.
-- Versions are random: a counter could repeat a number after Redis lost its last writes.
-- The log costs at most an eighth of reading the whole table, and is bounded because routing_changes walks it.
local function log_change(routing, log, version, fields)
  local before = redis.call('HGET', routing, 'version') or ''
  redis.call('HSET', routing, 'version', version)
  redis.call('LPUSH', log, before .. ' ' .. version .. ' ' .. fields)
  local kept = math.max(64, math.min(4096, math.floor(redis.call('HLEN', routing) / 8)))
  redis.call('LTRIM', log, 0, kept - 1)
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
