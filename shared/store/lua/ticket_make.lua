#!lua
-- Adds a ticket, which must be used soon. Those that are over make room, some at a time, and the oldest of the same
-- subject when that has many: one client must not use up the tickets of its account.
-- KEYS: account, tickets, ends, subjects
-- ARGV: hash of the ticket, hash of the subject, ms at which the token ends, record, ms for the first use, most of one
--       subject, most of the account, ms for which all of it is kept
-- Reply: {'made'} | {'full', ms at which the next one is over} | {'absent'} without the account
-- Touches at most: 21 tickets with their readers, ends and subjects.
--include now
local tickets, ends, subjects = KEYS[2], KEYS[3], KEYS[4]
local name, deleting = unpack(redis.call('HMGET', KEYS[1], 'name', 'deleting'))
if not name or deleting then return {'absent'} end

local function tickets_of(subject)
  local found = {}
  for each in string.gmatch(redis.call('HGET', subjects, subject) or '', '%x+') do found[#found + 1] = each end
  return found
end

local function drop(ticket)
  local record = redis.call('HGET', tickets, ticket)
  redis.call('ZREM', ends, ticket)
  redis.call('HDEL', tickets, ticket, ticket .. ':reader')
  if not record then return end
  local subject, left = string.match(record, '^%x+'), {}
  for _, each in ipairs(tickets_of(subject)) do
    if each ~= ticket then left[#left + 1] = each end
  end
  if #left > 0 then
    redis.call('HSET', subjects, subject, table.concat(left, ' '))
  else
    redis.call('HDEL', subjects, subject)
  end
end

local now = now_ms()
for _, ticket in ipairs(redis.call('ZRANGEBYSCORE', ends, '-inf', now, 'LIMIT', 0, 20)) do drop(ticket) end
local own = tickets_of(ARGV[2])
if #own >= tonumber(ARGV[6]) then
  drop(own[1])
  table.remove(own, 1)
end
if redis.call('ZCARD', ends) >= tonumber(ARGV[7]) then
  return {'full', redis.call('ZRANGE', ends, 0, 0, 'WITHSCORES')[2]}
end
own[#own + 1] = ARGV[1]
redis.call('HSET', tickets, ARGV[1], ARGV[2] .. ' ' .. ARGV[3] .. ' ' .. ARGV[4])
redis.call('ZADD', ends, math.min(now + ARGV[5], ARGV[3]), ARGV[1])
redis.call('HSET', subjects, ARGV[2], table.concat(own, ' '))
for i = 2, 4 do redis.call('PEXPIRE', KEYS[i], ARGV[8]) end
return {'made'}
