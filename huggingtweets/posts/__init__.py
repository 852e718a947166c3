"""Posts as received and as cleaned."""
