"""The Cognism dialect: how its clients authenticate, their patterns, and their frames.

Sections named in comments are those of docs/protocols/cognism.md.
"""
