"""Products of a run, visit by visit: built lazily, and written to a directory."""
