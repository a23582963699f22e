-- About what Redis spends on an entry besides its text.
local ENTRY_BYTES = 220

local function size_of(topic, data, name, trail) return #topic + #data + #name + #trail + ENTRY_BYTES end
