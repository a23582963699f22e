"""The Pelion dialect: how its clients prove themselves, subscribe, and are sent notifications.

Sections named in comments are those of docs/protocols/pelion.md.
"""
