#!lua
-- Adds a signing secret: it is the newest, so it has no end. Those before it end after the overlap, or when they would have.
-- A secret that is there already becomes the newest, in place of the one that it was.
-- KEYS: key     ARGV: id, secret, overlap in ms, how many there may be
-- Reply: {'added', line...} as in included/signing_secrets.lua | {'full', ms at which the next one ends} | {'revoked'}
-- Touches at most: 6 secrets.
--include now
--include signing_secrets
if redis.call('EXISTS', KEYS[1]) == 0 then return {'revoked'} end
local now = now_ms()
local secrets = {{id = ARGV[1], made_ms = string.format('%d', now), ends_ms = '-', text = ARGV[2]}}
local overlap_ends_ms, next_end_ms = now + tonumber(ARGV[3]), math.huge
for _, each in ipairs(secrets_of(KEYS[1], now)) do
  local ends_ms = math.min(tonumber(each.ends_ms) or math.huge, overlap_ends_ms)
  if each.text ~= ARGV[2] and ends_ms > now then
    each.ends_ms, next_end_ms = string.format('%d', ends_ms), math.min(next_end_ms, ends_ms)
    secrets[#secrets + 1] = each
  end
end
if #secrets > tonumber(ARGV[4]) then return {'full', next_end_ms} end
write_secrets(KEYS[1], secrets)
return add_lines({'added'}, secrets)
