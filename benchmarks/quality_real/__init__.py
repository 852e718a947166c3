"""Quality on a real base: what is trained, in which order, and what became of it."""
