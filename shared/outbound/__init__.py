"""Calls to customers' URLs; this room is the only one that makes them."""
