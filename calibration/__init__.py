"""Photometric products of a global calibration: per visit, as dask delayed graphs.

The catalogs of one FGCM run become, visit by visit, spatially varying calibrations of every
detector's fluxes, transmission curves of the atmosphere, and shards of the standard stars.

Numbers are in the unit that each function names; a Quantity or a Column is converted, or refused.
"""

from mapreduce.version import __version__

from .atmosphere.table import AtmosphereTable
from .atmosphere.transmission import BandIntegrals, TransmissionCurve, band_integrals
from .camera.camera import Camera
from .camera.detector import Detector, WcsDetector
from .camera.focal_plane import Boresight, RadialTransform
from .config.config import ColorTerm, ProductsConfig
from .display import draw_focal_plane, draw_transmissions
from .fields.chebyshev import ChebyshevField
from .photocalib.photocalib import PhotoCalib, VisitPhotoCalib
from .photocalib.zeropoints import CalibrationWarning, NoZeropointError, visit_photo_calib
from .products.build import FgcmProducts, build_products
from .products.write import WriteReport
from .reference.catalog import MissingBandError, ReferenceCatalog, ReferenceWarning
from .reference.measure import reference_offsets
from .reference.offsets import ReferenceOffsets
from .repeatability.report import Repeatability, measure_repeatability
from .run.problems import RunWarning
from .run.run import FgcmRun
from .simulate.instrument import simulate_camera
from .simulate.run import simulate_run
from .sky.matching import match_sky
from .sky.skymap import HealpixSkyMap, RingsSkyMap, SkyMap, sky_map_of
from .sources.calibrated import CalibratedSources, calibrate_sources
from .sources.report import SourcesReport
from .stars.tracts import TractStars, tract_stars
from .tables import astropy_parquet

__all__ = [
    "AtmosphereTable",
    "BandIntegrals",
    "Boresight",
    "CalibratedSources",
    "CalibrationWarning",
    "Camera",
    "ChebyshevField",
    "ColorTerm",
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
    "__version__",
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

astropy_parquet.register()
