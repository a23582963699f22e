-- The first entry of a queue, and the time in an entry id.
local function first_entry(queue) return redis.call('XRANGE', queue, '-', '+', 'COUNT', 1)[1] end

local function ms_of(entry_id) return tonumber(string.match(entry_id, '^%d+')) end
