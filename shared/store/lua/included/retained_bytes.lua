-- What a retained event takes: besides its text an entry of a stream, and the name by which it is found.
local RETAINED_BYTES = 420
