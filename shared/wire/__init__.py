"""The dialects. Pure: bytes in, values out; nothing here can await."""
