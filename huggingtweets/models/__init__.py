"""Families of models: one forward pass each, written for K models side by side."""
