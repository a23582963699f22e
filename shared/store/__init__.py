"""The only room that runs Redis commands: one module per noun, one Lua file per atomic step."""
