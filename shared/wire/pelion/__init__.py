"""The Pelion dialect: how its clients authenticate, subscribe and receive notifications.

Sections named in comments are those of docs/protocols/pelion.md.
"""
