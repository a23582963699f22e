"""Counts what a script touches: entries, log lines, fields, receipts and names, each of them once."""

from typing import Any

from shared.redis.pipeline import Script

_MOST = "{touched}:most"

# Stands in for `redis` in a script. What a command removes, or only looks at, is counted as what it reads.
_COUNTING = """
local real, script = redis, '%s'
local seen, count = {}, 0
local function touch(name, part)
  local element = name .. ' ' .. (part or '')
  if not seen[element] then seen[element], count = true, count + 1 end
end
local function touch_entries(name, entries)
  for _, entry in ipairs(entries) do touch(name, entry[1]) end
end
local function size_of_name(name)
  local kind = real.call('TYPE', name).ok
  local sizes = {stream = 'XLEN', hash = 'HLEN', list = 'LLEN', set = 'SCARD', zset = 'ZCARD'}
  return sizes[kind] and real.call(sizes[kind], name) or 1
end
local function is_receipt(name)
  return string.find(name, ':receipt:', 1, true) or string.find(name, '-event:', 1, true)
end
local redis = {call = function(command, name, ...)
  if not name then return real.call(command) end
  local given = {...}
  if command == 'XTRIM' then
    local before = real.call('XRANGE', name, '-', '+', 'COUNT', 1000)
    local removed = real.call(command, name, ...)
    for n = 1, removed do touch(name, before[n] and before[n][1] or n) end
    touch(name)
    real.call('ZADD', '{touched}:most', 'GT', count, script)
    return removed
  elseif command == 'DEL' then
    for _, each in ipairs({name, ...}) do
      for n = 1, is_receipt(each) and 1 or size_of_name(each) do touch(each, is_receipt(each) and '' or n) end
    end
  elseif command == 'LTRIM' then
    for n = real.call('LLEN', name), tonumber(given[2]) + 2, -1 do touch(name, n) end
  elseif command == 'ZMSCORE' or command == 'ZREM' then
    for _, member in ipairs(given) do touch(name, member) end
  elseif command == 'ZADD' then
    for n = 2, #given, 2 do touch(name, given[n]) end
  elseif command == 'UNLINK' then
    -- Redis frees their content beside its work.
    for _, each in ipairs({name, ...}) do touch(each) end
  elseif string.sub(command, 1, 1) == 'H' and not is_receipt(name) then
    local step = command == 'HSET' and 2 or 1
    local last = (command == 'HINCRBY' or command == 'HSETNX') and 1 or #given
    for n = 1, last, step do touch(name, given[n]) end
    touch(name)
  else
    touch(name)
  end
  local reply = real.call(command, name, ...)
  if command == 'XRANGE' or command == 'XREVRANGE' then
    touch_entries(name, reply)
  elseif command == 'XADD' then
    touch(name, reply)
  elseif command == 'XDEL' then
    touch(name, given[1])
  elseif command == 'HGETALL' then
    for n = 1, #reply, 2 do touch(name, reply[n]) end
  elseif string.find(' HKEYS HVALS SMEMBERS ZRANGE ZRANGEBYSCORE LPOP ', ' ' .. command .. ' ', 1, true) then
    for n = 1, reply and #reply or 0 do touch(name, n) end
  elseif command == 'LRANGE' then
    for n = 1, #reply do touch(name, given[1] + n) end
  end
  real.call('ZADD', '{touched}:most', 'GT', count, script)
  return reply
end}
"""


def counting(script: Script) -> Script:
    """The script, which also notes how many elements it has touched in one call."""
    rest = script.source.partition("\n")[2]
    return Script(script.name, "#!lua\n" + _COUNTING % script.name + rest)


def most_touched(direct: Any) -> dict[str, int]:
    """The most elements that each script has touched in one call."""
    return {name.decode(): int(count) for name, count in direct.zrange(_MOST, 0, -1, withscores=True)}
