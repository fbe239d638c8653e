"""What several test files share: exposures, an unread plane, mappers, and a serial map-reduce."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import numpy as np
from astropy.wcs import WCS, WCSCOMPARE_ANCILLARY
from dask.base import tokenize

from mapreduce import Box, Exposure, GaussianPsf, GridConfig, MaskPlanes, map_reduce

PLANES = ("image", "variance", "mask")
PSF = GaussianPsf(1.5)


@dataclass
class ArrayPlane:
    """A plane that is read by block; it can be made to fail on the blocks that touch a pixel."""

    array: np.ndarray
    broken: tuple[int, int] | None = None  # y, x
    shape: tuple[int, ...] = field(init=False)
    dtype: np.dtype = field(init=False)

    def __post_init__(self):
        self.shape, self.dtype = self.array.shape, self.array.dtype

    def __getitem__(self, slices):
        if self.broken is not None:
            y, x = self.broken
            rows, columns = slices
            if rows.start <= y < rows.stop and columns.start <= x < columns.stop:
                raise OSError(f"cannot read pixel {self.broken}")
        return self.array[slices].copy()

    def __dask_tokenize__(self):
        return "ArrayPlane", tokenize(self.array), self.broken


def make_exposure(width=40, height=27, *, origin=(5, -8), dtype="f4", variance=True, mask=True):
    """Make an exposure of noise whose sums depend on the order of summation."""
    rng = np.random.default_rng(height * width)
    shape = height, width
    image = (rng.normal(100, 5, shape) * 10 ** rng.uniform(-3, 3, shape)).astype(dtype)
    return Exposure(
        image,
        rng.uniform(20, 30, shape).astype("f4") if variance else None,
        np.where(rng.random(shape) < 0.1, 2, 0).astype("i4") if mask else None,
        origin=origin,
        psf=PSF,
    )


def with_planes(exposure, change):
    """Return the exposure with every plane changed by a function."""
    return exposure.replace(**{name: change(plane) for name, plane in exposure.planes.items()})


def unread(exposure, broken=None):
    """Return the exposure with planes that are read by block."""
    return with_planes(exposure, lambda plane: ArrayPlane(plane, broken))


def assert_same(result, expected):
    """Check that two exposures have equal planes, bit by bit but for the kind of NaN."""
    assert result.bbox == expected.bbox
    assert dict(result.mask_planes) == dict(expected.mask_planes)
    assert result.planes.keys() == expected.planes.keys()
    for name, plane in expected.planes.items():
        ours = result.planes[name]
        assert (name, ours.dtype) == (name, plane.dtype)
        np.testing.assert_array_equal(ours, plane, err_msg=name, strict=True)


@np.errstate(invalid="ignore")
def serial(exposure, mapper, grid, operation, **kwargs):
    """Map and reduce one cell after the other: what every parallel run must be equal to.

    "copy", "sum" and "average" as the original's task defines them.
    """
    # As pixels within a wider array: the sum over a contiguous array takes another order.
    exposure = with_planes(exposure, lambda plane: np.pad(plane, ((0, 0), (0, 1)))[:, :-1])
    start = np.nan if operation == "copy" else 0
    image, variance = (np.full_like(p, start) for p in (exposure.image, exposure.variance))
    mask, count = exposure.mask.copy(), np.zeros(exposure.shape, "i4")
    for cell in grid:
        given = dict(kwargs)
        if "rng" in mapper.__code__.co_varnames:
            given["rng"] = np.random.default_rng((0, cell.index))
        patch = mapper(
            exposure.cutout(cell.core), exposure.cutout(cell.expanded), exposure.bbox, **given
        )
        where = patch.bbox.slices(exposure.bbox)
        valid = ~np.isnan(patch.image * patch.variance)
        for plane, values in ((image, patch.image), (variance, patch.variance)):
            part = plane[where]
            part[valid] = values[valid] if operation == "copy" else part[valid] + values[valid]
        count[where] += valid
        mask[where] |= patch.mask
    if operation == "average":
        image, variance = ((p / count.astype("f8")).astype(p.dtype) for p in (image, variance))
    planes = exposure.mask_planes.add("INVALID_MAPREDUCE", "BAD", "NO_DATA")
    mask[np.isnan(image * variance)] |= planes.bitmask("INVALID_MAPREDUCE", "BAD", "NO_DATA")
    return Exposure(image, variance, mask, origin=exposure.origin, mask_planes=planes)


def log_call(folder):
    """Leave a file in a folder: counts calls in any number of processes."""
    (Path(folder) / uuid4().hex).touch()


def count_calls(folder):
    """Return how often `log_call` was called, and start again from zero."""
    files = list(Path(folder).iterdir())
    for file in files:
        file.unlink()
    return len(files)


# Exposures in files


def make_wcs(projection="TAN"):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = f"RA---{projection}", f"DEC--{projection}"
    wcs.wcs.crval = 123.45678901234567, -54.32109876543211
    wcs.wcs.crpix = 1234.5678901234567, -3.3333333333333335
    wcs.wcs.cd = np.array([[-1, 1 / 3], [1 / 7, 1]]) * 1e-4 / 3
    wcs.wcs.set()
    return wcs


def make_full(**parts):
    """Make an exposure of everything that could be lost."""
    rng = np.random.default_rng(1)
    image = rng.normal(100, 10, (70, 60)).astype("f4")
    image[3, 4], image[5, 6], image[7, 8] = np.nan, np.inf, -0.0
    image.view("u4")[9, 9] = 0x7FC12345  # a NaN with a payload
    variance = rng.uniform(20, 30, (70, 60)).astype("f4")
    variance[0, 0] = np.nan
    mask = rng.integers(0, 2**31, (70, 60)).astype("i4")
    planes = MaskPlanes({"BAD": 3, "SAT": 0, "DETECTED_NEGATIVE": 30, "mine": 7})
    parts = {"variance": variance, "mask": mask, "mask_planes": planes, "wcs": make_wcs()} | parts
    meta = {"EXPTIME": 30.0, "OBJECT": "M 1", "BUNIT": "nJy", "PHASE": -1 / 3e5, "FLAG": True}
    meta |= {"a long keyword": 5, "NOTHING": None, "TEXT": "long text" * 30}
    parts = {"meta": meta, "origin": (4000, -300), "psf": GaussianPsf(1.7)} | parts
    return Exposure(parts.pop("image", image), **parts)


def assert_read_back(found, expected):
    """Check that two exposures are equal bit by bit."""
    found = found.compute()
    for name in ("image", "variance", "mask"):
        one, other = getattr(found, name), getattr(expected, name)
        assert (one is None) == (other is None)
        if other is not None:
            assert one.dtype == other.dtype
            assert one.tobytes() == np.asarray(other).tobytes()
    assert found.bbox == expected.bbox
    assert (found.wcs is None) == (expected.wcs is None)
    if found.wcs is not None:
        # Dates are the header's.
        assert found.wcs.wcs.compare(expected.wcs.wcs, cmp=WCSCOMPARE_ANCILLARY, tolerance=1e-11)
        corners = [[expected.bbox.x0, expected.bbox.y0], [expected.bbox.x1, expected.bbox.y1]]
        sky = expected.wcs.all_pix2world(corners, 0)
        np.testing.assert_allclose(found.wcs.all_pix2world(corners, 0), sky, rtol=0, atol=1e-12)
    assert found.psf == expected.psf
    if expected.mask is not None:
        assert found.mask_planes == expected.mask_planes


# Mappers


def identity(sub, expanded, full_bbox):
    return sub


def whole(sub, expanded, full_bbox):
    return expanded


def trimmed(sub, expanded, full_bbox):
    box = sub.bbox.grow(-1)
    return sub.cutout(box) if box.area else sub


def minus_mean(sub, expanded, full_bbox):
    """Depend on the order in which numpy adds pixels."""
    return sub.replace(image=sub.image - np.mean(expanded.image))


def noisy(sub, expanded, full_bbox, rng):
    """Depend on random numbers, in image and variance, over the expanded box."""
    image = expanded.image + rng.normal(0, 3, expanded.shape).astype(expanded.image.dtype)
    variance = expanded.variance * rng.uniform(0.5, 2, expanded.shape).astype("f4")
    return expanded.replace(image=image, variance=variance)


def holes(sub, expanded, full_bbox):
    """Have pixels without value in either plane, infinities and zeros, another set in each cell."""
    out = expanded.copy()
    out.image[:: 2 + sub.bbox.x0 % 3] = np.nan
    out.variance[:, :: 3 + sub.bbox.y0 % 2] = np.nan
    out.image[1::5, 1::2] = np.inf
    out.variance[1::5, ::3] = 0
    return out


def flags(sub, expanded, full_bbox):
    """Set and clear bits, another set in each cell, also where there is no value."""
    out = expanded.copy()
    out.mask[...] = 1 << (sub.bbox.x0 + sub.bbox.y0) % 8
    out.image[::3] = np.nan
    return out


def everything(sub, expanded, full_bbox, rng):
    """All of the above."""
    out = holes(sub, noisy(sub, expanded, full_bbox, rng), full_bbox)
    out.image -= np.nanmean(expanded.image)
    out.mask[1::2] |= 1 << sub.bbox.y0 % 6
    return out


MAPPERS = (identity, whole, trimmed, minus_mean, noisy, holes, flags, everything)


def fails_at(sub, expanded, full_bbox, at, error=OSError):
    """Fail in the cells whose core covers one of these points."""
    for x, y in at:
        if sub.bbox.contains(Box(x, y, 1, 1)):
            raise error(f"no luck at {x}, {y}")
    return sub


# Runs of two cells in a row of four pixels


def two_cells(reducer, mapper=None, *, image=(1, 2, 3, 4), mask=(16, 16, 16, 16), **options):
    """Run on cells of the pixels 0 to 2 and 1 to 3."""
    exposure = Exposure(
        np.array([image], "f4"), np.ones((1, 4), "f4"), np.array([mask], "i4"), psf=PSF
    )
    grid = GridConfig((3, 1), border=0, centroids=[(1, 0), (2, 0)])
    return map_reduce(exposure, mapper or set_bits, grid=grid, reducer=reducer, **options).compute()


def set_bits(sub, expanded, full_bbox, cell):
    """Give both cells other bits, and the first no value in its last pixel."""
    image = sub.image.copy()
    if cell.index == 0:
        image[0, 2] = np.nan
    return sub.replace(image=image, mask=np.full(sub.shape, 2 << cell.index, "i4"))


def all_nan(sub, expanded, full_bbox):
    return sub.replace(image=np.full(sub.shape, np.nan, "f4"))
