"""Hidden Markov models and switching systems."""
