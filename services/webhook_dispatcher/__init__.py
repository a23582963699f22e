"""Delivers to customers' URLs: at once after a wakeup, and again with backoff after a failed attempt."""
