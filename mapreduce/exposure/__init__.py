"""What is cut: an exposure with its planes, box, WCS and PSF, and the names of file formats."""
