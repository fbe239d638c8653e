"""The standard stars of a run, by tract."""
