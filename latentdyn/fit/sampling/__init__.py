"""Markov chains over parameters and paths."""
