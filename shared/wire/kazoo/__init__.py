"""The Kazoo dialect: Blackhole over a WebSocket, and Crossbar's envelopes over HTTP.

Sections named in comments are those of docs/protocols/kazoo.md.
"""
