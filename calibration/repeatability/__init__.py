"""How well magnitudes of a star agree from visit to visit: a table and a figure."""
