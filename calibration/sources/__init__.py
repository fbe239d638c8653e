"""Tables of sources: from instrumental fluxes to nanojanskys and AB magnitudes, for a survey."""

from .calibrated import CalibratedSources, calibrate_sources
from .report import SourcesReport

__all__ = ["CalibratedSources", "SourcesReport", "calibrate_sources"]
