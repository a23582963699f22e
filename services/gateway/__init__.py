"""Short HTTP requests: accounts, publishing, subscriptions, channels."""

VERSION = "0.1.0"
