"""What the gateway carries, measured: `python -m tests.load SCENARIO`, or `make load`.

The parent process starts what is measured and its own workers, gives the orders and adds up; the workers
publish and receive. Every notification carries its place in a sequence, so that a run knows what it lost.
"""
