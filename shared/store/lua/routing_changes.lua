#!lua flags=no-writes,allow-oom
-- Reads the fields of a routing table that have changed since a version, with their present values: some of them, and
-- where to go on.
-- Walks the log back from the present version, or from where the last call ended. Each change must continue the one
-- before it: Redis may have lost writes. New changes may have moved the log meanwhile.
-- KEYS: routing, log
-- ARGV: the version that the gateway has; '' or the version at which the last call ended; how far back that was
-- Reply: {'changed', version, the version at which it ended, how far back, field, value or nil, ...}
--      | {'unknown'} when the whole table must be read
-- Touches at most: 300 lines of the log and about 200 fields.
local MOST_FIELDS = 200
local at = ARGV[2] ~= '' and ARGV[2] or redis.call('HGET', KEYS[1], 'version') or ''
local version, first = at, tonumber(ARGV[3])
local fields, seen, count, pages = {}, {}, 0, 0
-- Lines that were added since the last call: its end is as many lines further back.
local is_found = first == 0
while at ~= ARGV[1] and count < MOST_FIELDS and pages < 3 do
  local changes = redis.call('LRANGE', KEYS[2], first, first + 99)
  if #changes == 0 then return {'unknown'} end
  pages = pages + 1
  for n, change in ipairs(changes) do
    local before, after, changed = string.match(change, '^(%S*) (%S+) (.+)$')
    is_found = is_found or after == at
    if is_found then
      if after ~= at then return {'unknown'} end
      for field in string.gmatch(changed, '%S+') do
        if not seen[field] then
          seen[field] = true
          count = count + 1
          fields[count] = field
        end
      end
      at = before
    end
    first = first + 1
    if at == ARGV[1] or count >= MOST_FIELDS then break end
  end
end
local reply = {'changed', version, at, first}
for _, field in ipairs(fields) do
  reply[#reply + 1] = field
  reply[#reply + 1] = redis.call('HGET', KEYS[1], field)
end
return reply
