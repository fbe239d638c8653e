"""Offsets of a run's magnitudes against a reference catalog."""

from .catalog import MissingBandError, ReferenceCatalog, ReferenceWarning
from .matching import match_sky
from .measure import reference_offsets
from .offsets import ReferenceOffsets

__all__ = [
    "MissingBandError",
    "ReferenceCatalog",
    "ReferenceOffsets",
    "ReferenceWarning",
    "match_sky",
    "reference_offsets",
]
