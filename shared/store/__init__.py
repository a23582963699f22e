"""The only room that runs Redis commands: a module for each noun, a Lua file for what must happen at once."""
