"""Differentiable operators on K models at once: PyTorch everywhere, C++ on a CPU."""
