"""Filters that take one step of many streams at a time."""
