"""Training of dynamics along forced paths."""
