#!lua flags=no-writes,allow-oom
-- Reads a whole routing table if it is small. A large one is read in pages (routing_tables.py): one step would stop
-- Redis for all clients.
-- KEYS: routing     ARGV: the most fields to read in one step
-- Reply: {'all', field, value, ...} | {'large', version, number of fields}
-- Touches at most: as many fields as ARGV says (250).
local count = redis.call('HLEN', KEYS[1])
if count > tonumber(ARGV[1]) then
  return {'large', redis.call('HGET', KEYS[1], 'version') or '', count}
end
local reply = redis.call('HGETALL', KEYS[1])
table.insert(reply, 1, 'all')
return reply
