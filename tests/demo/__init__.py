"""The demo: `python -m tests.demo`, or `make demo`.

Publishes a year of hourly temperatures of two cities as device notifications and receives them over a
WebSocket, which is cut half way. The table at the end shows counts and latencies.
"""
