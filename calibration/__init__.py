"""Photometric products of a global calibration: per visit, as dask delayed graphs.

The catalogs of one FGCM run become, visit by visit, spatially varying calibrations of every
detector's fluxes, transmission curves of the atmosphere, and shards of the standard stars.
"""

from .atmosphere import AtmosphereTable
from .camera import Boresight, Camera, Detector, RadialTransform, WcsDetector
from .catalogs import FgcmRun, RunWarning
from .config import ColourTerm, ProductsConfig
from .display import draw_focal_plane, draw_transmissions
from .fields import ChebyshevField
from .photocalib import PhotoCalib, VisitPhotoCalib
from .products import FgcmProducts, build_products
from .reference import (
    MissingBandError,
    ReferenceCatalog,
    ReferenceOffsets,
    ReferenceWarning,
    match_sky,
    reference_offsets,
)
from .repeatability import Repeatability, measure_repeatability
from .simulate import simulate_camera, simulate_run
from .skymap import HealpixSkyMap, RingsSkyMap, SkyMap, sky_map_of
from .sources import CalibratedSources, SourcesReport, calibrate_sources
from .stars import TractStars, tract_stars
from .transmission import BandIntegrals, TransmissionCurve, band_integrals
from .write import WriteReport
from .zeropoints import CalibrationWarning, NoZeropointError, visit_photo_calib

__all__ = [
    "AtmosphereTable",
    "BandIntegrals",
    "Boresight",
    "CalibratedSources",
    "CalibrationWarning",
    "Camera",
    "ChebyshevField",
    "ColourTerm",
    "Detector",
    "FgcmProducts",
    "FgcmRun",
    "HealpixSkyMap",
    "MissingBandError",
    "NoZeropointError",
    "PhotoCalib",
    "ProductsConfig",
    "RadialTransform",
    "ReferenceCatalog",
    "ReferenceOffsets",
    "ReferenceWarning",
    "Repeatability",
    "RingsSkyMap",
    "RunWarning",
    "SkyMap",
    "SourcesReport",
    "TractStars",
    "TransmissionCurve",
    "VisitPhotoCalib",
    "WcsDetector",
    "WriteReport",
    "band_integrals",
    "build_products",
    "calibrate_sources",
    "draw_focal_plane",
    "draw_transmissions",
    "match_sky",
    "measure_repeatability",
    "reference_offsets",
    "simulate_camera",
    "simulate_run",
    "sky_map_of",
    "tract_stars",
    "visit_photo_calib",
]
