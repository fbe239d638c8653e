"""The atmosphere above a telescope, and transmission curves."""
