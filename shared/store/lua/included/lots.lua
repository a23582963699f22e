-- The most entries of one read: Redis copies their text, and serves nothing else meanwhile.
local READ_LOT = 384
