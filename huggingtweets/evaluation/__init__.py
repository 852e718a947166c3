"""Measured quality of a model."""
