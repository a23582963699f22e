-- Counts the API keys and bindings that a routing table has, in a hash beside it: a quota is judged by them.
local function bindings_in(field, value)
  local kind = string.match(field, '^%l+')
  if not value or value == '' or value == '[]' then return 0 end
  if kind == 'resources' then return select(2, string.gsub(value, '\n', '')) end
  -- JSON without blanks: an array of strings, or of objects. Text inside may only make the count too high.
  return select(2, string.gsub(value, kind == 'topics' and '","' or '},{', '')) + 1
end

local function add_count(counts, name, by)
  if by == 0 then return end
  if redis.call('HINCRBY', counts, name, by) <= 0 then redis.call('HDEL', counts, name) end
end

-- `before` and `after` are the field's values; false without it.
local function count_change(counts, field, before, after)
  local kind = string.match(field, '^%l+')
  if kind == 'key' then
    add_count(counts, 'channels', (after and 1 or 0) - (before and 1 or 0))
  elseif kind == 'bindings' or kind == 'topics' or kind == 'resources' or kind == 'session' then
    add_count(counts, 'bindings', bindings_in(field, after) - bindings_in(field, before))
  end
end
