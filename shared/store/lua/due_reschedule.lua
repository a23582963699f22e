#!lua flags=allow-oom
-- Writes when visited channels are due next, or removes them. A score that has changed since it was read stays: the
-- channel was made due meanwhile, and what the visit saw says nothing about that.
-- KEYS: due channels     ARGV: groups of three: API key id, the score that was read, the new score or ''
-- Reply: the number written or removed
-- Touches at most: the members in ARGV, 128.
local ids = {}
for i = 1, #ARGV, 3 do ids[#ids + 1] = ARGV[i] end
local next_scores, gone = {}, {}
for n, score in ipairs(redis.call('ZMSCORE', KEYS[1], unpack(ids))) do
  if score and tonumber(score) == tonumber(ARGV[3 * n - 1]) then
    if ARGV[3 * n] == '' then
      gone[#gone + 1] = ids[n]
    else
      next_scores[#next_scores + 1] = ARGV[3 * n]
      next_scores[#next_scores + 1] = ids[n]
    end
  end
end
if #next_scores > 0 then redis.call('ZADD', KEYS[1], unpack(next_scores)) end
if #gone > 0 then redis.call('ZREM', KEYS[1], unpack(gone)) end
return #gone + #next_scores / 2
