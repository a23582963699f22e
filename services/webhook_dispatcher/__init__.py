"""Calls customers' URLs: at once when a nudge tells of something, again and again when that failed."""
