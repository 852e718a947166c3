"""Hyperparameter sweeps: many trainings of the same people, to find what suits them."""
