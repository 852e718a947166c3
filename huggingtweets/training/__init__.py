"""The engines that train models."""
