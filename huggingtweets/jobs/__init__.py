"""Which jobs there are, where each runs, and what became of it."""
