"""Parallel map-reduce over astronomical exposures.

An exposure is cut into overlapping cells on a grid, a function runs on every cell in parallel, and
a reducer puts the results together::

    Exposure --grid--> cells --mapper--> results --reducer--> Exposure | catalog | anything
"""

from .box import Box
from .cell_psf import CellPsf, PsfComponent
from .engine import map_reduce, split
from .exposure import Exposure
from .grid import Cell, Grid, GridConfig
from .io import read_exposure, write_exposure
from .mapper import array_mapper
from .mask import MaskPlanes
from .psf import DoubleGaussianPsf, GaussianPsf, KernelPsf, Psf, PsfexPsf
from .reducer import (
    Average,
    CellResult,
    Collector,
    Concatenate,
    Copy,
    Feather,
    Median,
    Patch,
    PixelReducer,
    Sum,
    WeightedAverage,
)
from .report import CellFailure, Report
from .simulate import simulate_exposure

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
    "array_mapper",
    "map_reduce",
    "read_exposure",
    "simulate_exposure",
    "split",
    "write_exposure",
]
