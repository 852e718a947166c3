"""The page and the API over finished models."""
