"""Calibrations of a detector and of a visit, from the zeropoints of a fit."""
