"""What the services share: nouns and rules, dialects, the store, and what any process needs."""
