"""The load harness: `python -m tests.load SCENARIO`, or `make load`.

The parent process starts an installation and worker processes, which publish and receive. Notifications are
numbered, so that a run counts what was lost, duplicated or out of order.
"""
