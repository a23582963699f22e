"""The main job on real input, without a second terminal: `python -m tests.demo`, or `make demo`.

A year of hourly temperatures of two cities is published as device notifications and received over one
WebSocket, which is torn off half way. The table at the end says what arrived, how often and how late.
"""
