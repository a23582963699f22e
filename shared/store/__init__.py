"""The only room that runs Redis commands: one module per noun, one Lua file per thing that happens at once."""
