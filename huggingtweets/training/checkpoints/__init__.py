"""Checkpoints: what they hold, how they are written beside training, and read again."""
