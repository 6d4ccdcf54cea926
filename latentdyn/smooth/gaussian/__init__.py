"""Gaussian posteriors of paths: exact, linearised, and around a mode."""
