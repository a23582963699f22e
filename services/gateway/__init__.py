"""Short HTTP requests: accounts, publishing, subscriptions, channels."""
