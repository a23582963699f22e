-- Whether a request may write no more: its deadline in ms has passed by Redis' clock. Its mark is about to end or has
-- ended, so a repetition may have begun, and what comes now would arrive behind that.
--include now
local function is_late(deadline_ms) return now_ms() > tonumber(deadline_ms) end
