"""What is due goes: channels without a socket, notifications that are too old, traces of what is gone."""
