"""The dialects. Pure: bytes in, values out, nothing awaits."""
