-- The secrets that sign the webhooks of an API key or of a native channel, newest first, without those that have ended.
-- Each has a line in the field `signing_secrets`: `<id> <ms when it was made> <ms when it ends, or -> <secret>`.
-- The newest one has no end. Until a second one is made there is only `signing_secret`, without a line.
-- `key` is the name of the record; `lines`, `first` and `made_ms` are its fields signing_secrets, signing_secret and
-- created_at_ms.
local function secrets_among(key, lines, first, made_ms, now)
  if not lines and first then
    lines = 'sec_' .. key:match('{(.-)}') .. ' ' .. (made_ms or '0') .. ' - ' .. first
  end
  local secrets = {}
  for line in (lines or ''):gmatch('[^\n]+') do
    local id, made, ends, text = line:match('^(%S+) (%S+) (%S+) (%S+)$')
    if ends == '-' or tonumber(ends) > now then
      secrets[#secrets + 1] = {id = id, made_ms = made, ends_ms = ends, text = text}
    end
  end
  return secrets
end
local function secrets_of(key, now)
  local lines, first, made_ms = unpack(redis.call('HMGET', key, 'signing_secrets', 'signing_secret', 'created_at_ms'))
  return secrets_among(key, lines, first, made_ms, now)
end
-- The texts of those that sign now, separated by blanks, of the fields that the caller has read.
local function signing_texts(key, lines, first, made_ms, now)
  local texts = {}
  for _, each in ipairs(secrets_among(key, lines, first, made_ms, now)) do texts[#texts + 1] = each.text end
  return table.concat(texts, ' ')
end
-- The secrets as lines, behind what a reply begins with.
local function add_lines(reply, secrets)
  for _, each in ipairs(secrets) do
    reply[#reply + 1] = table.concat({each.id, each.made_ms, each.ends_ms, each.text}, ' ')
  end
  return reply
end
-- Writes the secrets. `signing_secret` is the newest HMAC one: a process of an older release signs with that alone.
local function write_secrets(key, secrets)
  redis.call('HSET', key, 'signing_secrets', table.concat(add_lines({}, secrets), '\n'))
  for _, each in ipairs(secrets) do
    if each.text:sub(1, 6) == 'whsec_' then return redis.call('HSET', key, 'signing_secret', each.text) end
  end
  redis.call('HDEL', key, 'signing_secret')
end
