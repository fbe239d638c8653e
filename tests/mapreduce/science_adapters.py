"""Functions on plain arrays, as checks of the science from outside call them."""

from __future__ import annotations

import numpy as np

from mapreduce import Exposure, GridConfig, catalog_mapper, map_reduce

SHIFTED = ("x", "xmin", "xmax", "xcpeak", "xpeak"), ("y", "ymin", "ymax", "ycpeak", "ypeak")


def extract(expanded, **options):
    """Return the sources that sep finds in a cell."""
    import sep

    image, mask = expanded.image.astype("f4"), expanded.mask != 0
    found = sep.extract(image, mask=mask, **options)
    columns = {name: found[name] for name in found.dtype.names}
    columns["flux_aper5"], _, _ = sep.sum_circle(image, found["x"], found["y"], 5.0, mask=mask)
    return columns


def detect(image, mask, *, cell, border, **options):
    """Return a catalog of the sources in an image, made in cells."""
    x, y = SHIFTED
    mapper = catalog_mapper(extract, x=x, y=y, **options)
    grid = GridConfig(cell, border=border)
    exposure = Exposure(np.asarray(image), mask=np.asarray(mask))
    catalog = map_reduce(exposure, mapper, grid=grid, reducer="concatenate").compute()
    return {name: np.asarray(catalog[name]) for name in catalog.colnames}
