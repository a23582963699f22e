"""The Cognism dialect: how its clients prove themselves, what their patterns ask for, what they are sent.

Sections named in comments are those of docs/protocols/cognism.md.
"""
