#!lua flags=allow-oom
-- Ends a signing secret now. The newest stays: nothing would sign when those before it have ended.
-- KEYS: key     ARGV: id
-- Reply: 'ended' | 'newest' | 'absent', also without such a key
-- Touches at most: 5 secrets.
--include now
--include signing_secrets
local secrets = secrets_of(KEYS[1], now_ms())
for place, each in ipairs(secrets) do
  if each.id == ARGV[1] then
    if place == 1 then return 'newest' end
    table.remove(secrets, place)
    write_secrets(KEYS[1], secrets)
    return 'ended'
  end
end
return 'absent'
