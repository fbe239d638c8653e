"""What puts the results of cells together."""
