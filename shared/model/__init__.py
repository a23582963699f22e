"""Nouns and rules. Pure Python: no I/O, no clock (`now` is a parameter)."""
