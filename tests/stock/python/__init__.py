"""Receivers of webhooks on Python's servers; each is a program of its own."""
