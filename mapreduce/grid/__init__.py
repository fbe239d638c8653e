"""Where it is cut: cells with their core and expanded boxes."""
