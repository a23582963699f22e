"""Expiry and reconciliation: idle channels, old notifications, orphaned sessions, routing tables."""
