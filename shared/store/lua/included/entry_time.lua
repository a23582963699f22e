-- Entry ids begin with the time of Redis at which they were given.
local function ms_of(entry_id) return tonumber(string.match(entry_id, '^%d+')) end
