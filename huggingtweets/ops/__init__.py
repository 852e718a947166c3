"""Differentiable operators on K models at once, and what computes them by PyTorch."""
