"""Clients that applications use; only the host is changed."""
