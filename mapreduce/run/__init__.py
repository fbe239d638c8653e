"""How one exposure runs: from a plan of tiles to tasks and the lazy result."""
