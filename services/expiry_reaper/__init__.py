"""Expiry, the sessions of dead edges, and slow reconciliation of everything."""
