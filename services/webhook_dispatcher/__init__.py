"""Calls customers' URLs: on a wakeup at once, and after a failure with backoff."""
