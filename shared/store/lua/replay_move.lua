#!lua flags=allow-oom
-- A step of a replay that appends nothing: none of what it passed matches the channel's bindings.
-- KEYS: channel, queue, replay     ARGV: step (replay_cursor.lua)
-- Reply: {'queued'} | {'absent' | 'fenced' | 'moved'}
-- Touches at most: 10 fields.
--include replay_cursor
return move_cursor(KEYS[3], KEYS[1], KEYS[2], ARGV[1], 0) or {'queued'}
