"""The catalogs of one FGCM fit: found, bound to their columns, checked and indexed."""
