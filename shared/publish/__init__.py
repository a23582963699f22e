"""Publishing: parse, match, quota, append, response. Every service that takes events uses it."""
