#!lua flags=no-writes,allow-oom
-- What has changed in an account's table since a version: the fields that did, as they stand now.
-- Walks the log of changes back from the present version, and trusts it only while each change followed the
-- one before: Redis may have lost writes, and an older release of ours writes no log.
-- KEYS: table, route changes     ARGV: the version that the gateway has
-- Returns {'changed', version, field, value or nil, ...} | {'unknown'}, when all must be read anew
local version = redis.call('HGET', KEYS[1], 'version') or ''
local fields, seen = {}, {}
local at, first = version, 0
while at ~= ARGV[1] do
  local entries = redis.call('LRANGE', KEYS[2], first, first + 99)
  if #entries == 0 then return {'unknown'} end
  for _, entry in ipairs(entries) do
    local before, after, changed = string.match(entry, '^(%S*) (%S+) (.+)$')
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
  first = first + 100
end
local answer = {'changed', version}
for _, field in ipairs(fields) do
  answer[#answer + 1] = field
  answer[#answer + 1] = redis.call('HGET', KEYS[1], field)
end
return answer
