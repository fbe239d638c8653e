import pickle
from dataclasses import replace

import numpy as np
import pytest
from dask.base import tokenize

from mapreduce import Box, Exposure, GaussianPsf, GridConfig

BOX = Box(100, -50, 40, 30)
FWHM = GaussianPsf(2.0).fwhm()


def test_lsst_defaults_are_in_fwhm():
    exposure = Exposure(np.zeros((200, 200)), psf=GaussianPsf(2.0))
    size = round(10 * FWHM)
    same = GridConfig.lsst(cellSizeX=size, cellSizeY=size, scaleByFwhm=False)
    assert [cell.core for cell in GridConfig.lsst().build(exposure)] == [
        cell.core for cell in same.build(exposure)
    ]


def test_lsst_centroids_are_local():
    config = GridConfig.lsst(cellCentroidsX=[5], cellCentroidsY=[6], cellSizeX=3.9, cellSizeY=3.9)
    assert config.build(BOX)[0].core == Box(104, -45, 3, 3)


def test_lsst_drops_cells_of_one_pixel():
    fields = {"adjustGridOption": "none", "scaleByFwhm": False}
    box = Box(0, 0, 11, 11)
    assert len(GridConfig.lsst(**fields).build(box)) == 3
    assert len(GridConfig(10, adjust="none").build(box)) == 4


def test_lsst_empty_grid_is_a_warning():
    with pytest.warns(UserWarning, match="no cell of"):
        grid = GridConfig.lsst(cellSizeX=0.4, cellSizeY=0.4, scaleByFwhm=False).build(BOX)
    assert len(grid) == 0


@pytest.mark.parametrize(
    ("fields", "error", "match"),
    [
        ({"cellSize": 5}, TypeError, "unknown field cellSize; there are cellCentroidsX"),
        ({"cellSizeX": 0}, ValueError, "cell_size must be finite and above zero"),
        ({"borderSizeX": 0}, ValueError, "border must be finite and above zero"),
        ({"adjustGridOption": "partition"}, ValueError, "choose from spacing, size, none"),
        ({"cellCentroidsX": [1, 2], "cellCentroidsY": [1]}, ValueError, "2 values but .* 1"),
        ({"cellCentroidsX": [1]}, ValueError, "has 1 values but cellCentroidsY none"),
    ],
)
def test_lsst_bad_fields(fields, error, match):
    with pytest.raises(error, match=match):
        GridConfig.lsst(**fields)


@pytest.mark.parametrize(("x", "error"), [(np.nan, ValueError), (np.inf, OverflowError)])
def test_lsst_centroids_that_are_nowhere(x, error):
    config = GridConfig.lsst(cellCentroidsX=[x], cellCentroidsY=[1])
    with pytest.raises(error, match=r"centroid \(.*, 1.0\) is not a finite position"):
        config.build(BOX)


def test_lsst_is_a_configuration_with_other_rules():
    config = GridConfig.lsst(scaleByFwhm=False)
    own = GridConfig(10, step=10, border=5, adjust="none")
    assert isinstance(config, GridConfig)
    assert config == GridConfig.lsst(scaleByFwhm=False)
    assert replace(config, adjust="none") != own
    assert hash(config) == hash(GridConfig.lsst(scaleByFwhm=False))
    assert pickle.loads(pickle.dumps(config)).build(BOX) == config.build(BOX)
    assert tokenize(config) == tokenize(GridConfig.lsst(scaleByFwhm=False))
    assert tokenize(replace(config, adjust="none")) != tokenize(own)
    assert repr(own) == (
        "GridConfig(cell_size=(10.0, 10.0), step=(10.0, 10.0), border=(5.0, 5.0), "
        "adjust='none', scale_by_fwhm=False, even_sized=False, centroids=None)"
    )
    assert repr(replace(config, adjust="none")) == repr(own).replace("Grid", "LsstGrid")
