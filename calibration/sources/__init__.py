"""Tables of sources: from instrumental fluxes to nanojanskys and AB magnitudes, for a survey."""
