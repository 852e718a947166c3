"""Posts sampled from a model."""
