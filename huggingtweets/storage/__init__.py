"""Files of ours on disk: written whole, locked, sealed, cached and found again."""
