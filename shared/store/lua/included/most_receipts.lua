-- A queue has at most so many receipts that are tracked, but for a moment.
local MOST_RECEIPTS = 10000
