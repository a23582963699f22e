#!lua flags=no-writes,allow-oom
-- Reads the fields of a routing table that have changed since a version, with their present values.
-- Walks the log back from the present version. Each change must continue the one before it: Redis may have lost writes.
-- Touches at most: 256 log lines, and 250 fields that they name.
-- KEYS: routing, log     ARGV: the version that the gateway has
-- Reply: {'changed', version, field, value or nil, ...} | {'unknown'} when the whole table must be read
local MOST_CHANGES, MOST_FIELDS, PAGE = 256, 250, 64
local version = redis.call('HGET', KEYS[1], 'version') or ''
local fields, seen = {}, {}
local at, first = version, 0
while at ~= ARGV[1] do
  -- More cost as much as the whole table.
  if first >= MOST_CHANGES or #fields > MOST_FIELDS then return {'unknown'} end
  local changes = redis.call('LRANGE', KEYS[2], first, first + PAGE - 1)
  if #changes == 0 then return {'unknown'} end
  for _, change in ipairs(changes) do
    local before, after, changed = string.match(change, '^(%S*) (%S+) (.+)$')
    if after ~= at then return {'unknown'} end
    for field in string.gmatch(changed, '%S+') do
      if not seen[field] then
        seen[field] = true
        fields[#fields + 1] = field
      end
    end
    at = before
    if at == ARGV[1] then break end
  end
  first = first + PAGE
end
if #fields > MOST_FIELDS then return {'unknown'} end
local reply = {'changed', version}
for _, field in ipairs(fields) do
  reply[#reply + 1] = field
  reply[#reply + 1] = redis.call('HGET', KEYS[1], field)
end
return reply
