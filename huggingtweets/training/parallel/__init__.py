"""The single engine: one model over all processes of the launch."""
