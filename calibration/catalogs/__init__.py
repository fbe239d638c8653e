"""The catalogs of an FGCM run: read lazily from FITS and Parquet, and checked.

files ──table──▶ columns of rows ──schema──▶ catalogs ──checks──▶ FgcmRun
"""

from .problems import RunWarning
from .run import FgcmRun

__all__ = ["FgcmRun", "RunWarning"]
