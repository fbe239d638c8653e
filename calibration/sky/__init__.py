"""Tracts, HEALPix pixels, and matching of positions on the sky."""
