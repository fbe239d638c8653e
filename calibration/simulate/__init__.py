"""An FGCM run with known truth: camera, atmosphere, instrument, sky, and what is observed of it."""
