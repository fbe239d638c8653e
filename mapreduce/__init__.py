"""Parallel map-reduce over astronomical exposures.

An exposure is cut into overlapping cells on a grid, a function runs on every cell in parallel, and
a reducer puts the results together::

    Exposure --grid--> cells --mapper--> results --reducer--> Exposure | catalog | anything

Numbers are in the unit that each function names; a Quantity or a Column is converted, or refused.
"""

from .exposure.box import Box
from .exposure.cell_psf import CellPsf, PsfComponent
from .exposure.exposure import Exposure
from .exposure.mask import MaskPlanes
from .exposure.psf import DoubleGaussianPsf, GaussianPsf, KernelPsf, Psf, PsfexPsf
from .grid.config import GridConfig
from .grid.grid import Cell, Grid
from .io.files import read_exposure, write_exposure
from .mappers.catalog import catalog_mapper
from .mappers.mapper import array_mapper
from .reducers.base import CellResult, Collector, Patch, PixelReducer
from .reducers.collect import Concatenate
from .reducers.pixels import Average, Copy, Feather, Median, Sum, WeightedAverage
from .report import CellFailure, Report
from .run.engine import map_reduce, split
from .run.seams import check_seams
from .simulate import simulate_exposure
from .version import __version__

__all__ = [
    "Average",
    "Box",
    "Cell",
    "CellFailure",
    "CellPsf",
    "CellResult",
    "Collector",
    "Concatenate",
    "Copy",
    "DoubleGaussianPsf",
    "Exposure",
    "Feather",
    "GaussianPsf",
    "Grid",
    "GridConfig",
    "KernelPsf",
    "MaskPlanes",
    "Median",
    "Patch",
    "PixelReducer",
    "Psf",
    "PsfComponent",
    "PsfexPsf",
    "Report",
    "Sum",
    "WeightedAverage",
    "__version__",
    "array_mapper",
    "catalog_mapper",
    "check_seams",
    "map_reduce",
    "read_exposure",
    "simulate_exposure",
    "split",
    "write_exposure",
]
