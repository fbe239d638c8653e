"""What is fuzzed: doors by which exposures come in, how seeds are made, and how each is used.

Those of tables are in `tests.fuzz.tables`.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

from mapreduce import (
    Box,
    Exposure,
    GaussianPsf,
    GridConfig,
    KernelPsf,
    map_reduce,
    read_exposure,
)
from mapreduce.exposure.cell_psf import CellPsf, PsfComponent
from mapreduce.io.psf import read_psfex

SHAPE = 40, 44
RNG = np.random.default_rng(1)
IMAGE = RNG.normal(100, 5, SHAPE).astype("f4")
VARIANCE = RNG.uniform(20, 30, SHAPE).astype("f4")
MASK = np.where(RNG.random(SHAPE) < 0.1, RNG.integers(1, 64, SHAPE), 0).astype("i4")


@dataclass(frozen=True)
class Door:
    """One way for a file to come in.

    Attributes
    ----------
    name : str
    make : callable
        ``make(folder)`` writes the files of a good seed.
    use : callable
        ``use(folder)`` reads them and uses what it gets; returns what is compared to the seed's.
    sparse : bool
        Whether a file of pixels that is not there is no fault.
    """

    name: str
    make: Callable[[Path], Any]
    use: Callable[[Path], Any]
    sparse: bool = False


class Inconsistent(Exception):
    """What was read depends on how it was read."""


def exposure(psf: Any = None) -> Exposure:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = "RA---TAN", "DEC--TAN"
    wcs.wcs.crval, wcs.wcs.crpix, wcs.wcs.cdelt = (10, 20), (20, 20), (-5e-5, 5e-5)
    meta = {"BUNIT": "adu", "EXPTIME": 30.0, "OBJECT": "M 1", "FLAG": True}
    parts = {"origin": (100, 200), "psf": psf or GaussianPsf(1.7), "wcs": wcs, "meta": meta}
    return Exposure(IMAGE, VARIANCE, MASK, **parts)


def cell_psf() -> CellPsf:
    kernel = KernelPsf(np.outer([1, 2, 1], [1, 3, 1]) / 20)
    return CellPsf(
        PsfComponent(i, Box(100 + 20 * i, 200, 20, 40), psf, 1.0)
        for i, psf in enumerate((GaussianPsf(2.0), kernel))
    )


# Seeds


def multi_extension(folder: Path) -> None:
    """Integers with BSCALE, errors, an unsigned mask: as many observatories do it."""
    sci = fits.ImageHDU(IMAGE.astype("i2"), name="SCI")
    sci.header["BSCALE"], sci.header["BZERO"], sci.header["BLANK"] = 0.5, 10.0, -32768
    hdus = [fits.PrimaryHDU(header=fits.Header({"TELESCOP": "any"})), sci]
    hdus += [fits.ImageHDU(np.sqrt(VARIANCE), name="ERR")]
    hdus += [fits.ImageHDU(MASK.astype("u2"), name="DQ")]
    fits.HDUList(hdus).writeto(folder / "a.fits")


def packed(image: str, mask: str, dtype: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        hdus = [
            fits.PrimaryHDU(),
            fits.CompImageHDU(
                IMAGE.astype(dtype), name="SCI", compression_type=image, tile_shape=(8, 44)
            ),
            fits.CompImageHDU(VARIANCE, name="VAR", compression_type="RICE_1", dither_seed=9),
            fits.CompImageHDU(
                MASK.astype("i2"), name="DQ", compression_type=mask, tile_shape=(20, 22)
            ),
        ]
        fits.HDUList(hdus).writeto(folder / "a.fits.fz")

    return make


def zipped(folder: Path) -> None:
    multi_extension(folder)
    data = (folder / "a.fits").read_bytes()
    (folder / "a.fits").unlink()
    (folder / "a.fits.gz").write_bytes(gzip.compress(data, mtime=0))


def afw(folder: Path) -> None:
    """Planes as afw writes them, with a PSFEx model in the archive."""
    primary = fits.Header({"AR_HDU": 5, "PSF_ID": 3, "EXPTIME": 30.0})
    hdus = [fits.PrimaryHDU(header=primary)]
    for name, array in (("IMAGE", IMAGE), ("MASK", MASK), ("VARIANCE", VARIANCE)):
        hdus.append(fits.CompImageHDU(array, name=name, tile_shape=(20, 44), dither_seed=9))
        hdus[-1].header.update({"CRPIX1A": 1.0, "CRPIX2A": 1.0, "CRVAL1A": 7.0, "CRVAL2A": 8.0})
    hdus[2].header.update({"MP_BAD": 0, "MP_SAT": 1, "HIERARCH MP_CROSSTALK": 5})
    names = ("id", "cat.archive", "cat.persistable", "row0")
    rows = {"id": [3, 3], "cat.archive": [1, 2], "cat.persistable": [0, 1], "row0": [0, 0]}
    index = [fits.Column(name, "J", array=rows[name]) for name in names]
    index.append(fits.Column("name", "8A", array=["PsfexPsf"] * 2))
    scalars = [
        fits.Column(name, "D", array=[value])
        for name, value in (("_pixstep", 1.0), ("averagePosition_x", 20), ("averagePosition_y", 9))
    ]
    planes = psfex_planes()
    arrays = [
        fits.Column("_size", "3J", array=[[3, 3, 3]]),
        fits.Column("_comp", "27E", array=planes.reshape(1, -1)),
        fits.Column("degree", "J", array=[1]),
        fits.Column("_context_first", "2D", array=[[20, 20]]),
        fits.Column("_context_second", "2D", array=[[20, 20]]),
    ]
    hdus += [fits.BinTableHDU.from_columns(columns) for columns in (index, scalars, arrays)]
    fits.HDUList(hdus).writeto(folder / "a.fits")


def decam(folder: Path) -> None:
    """Image, weight and quality, side by side, and a PSFEx file."""
    primary = fits.PrimaryHDU(header=fits.Header({"INSTRUME": "DECam", "PLVER": "V4.8"}))
    for kind, array in (("i", IMAGE), ("w", 1 / VARIANCE), ("d", (MASK % 9).astype("i2"))):
        ccds = [fits.CompImageHDU(array, name=ccd, quantize_level=0) for ccd in ("N1", "N2")]
        fits.HDUList([primary, *ccds]).writeto(folder / f"c4d_oo{kind}_z.fits.fz")
    psfex(folder)


def psfex_planes() -> np.ndarray:
    return np.multiply.outer([1, 0.1, 0.1], np.outer([1, 2, 1], [1, 2, 1]))[None].astype("f4")


def psfex(folder: Path) -> None:
    planes = psfex_planes()
    table = fits.BinTableHDU.from_columns(
        [fits.Column("PSF_MASK", "27E", dim="(3,3,3)", array=planes)], name="PSF_DATA"
    )
    cards = {"POLNAXIS": 2, "POLNGRP": 1, "POLDEG1": 1, "PSF_SAMP": 0.8, "PSFNAXIS": 3}
    cards |= {"PSFAXIS1": 3, "PSFAXIS2": 3, "PSFAXIS3": 3, "POLNAME1": "X_IMAGE", "POLGRP1": 1}
    cards |= {"POLNAME2": "Y_IMAGE", "POLZERO1": 20.0, "POLZERO2": 20.0}
    table.header.update(cards | {"POLSCAL1": 20.0, "POLSCAL2": 20.0})
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(folder / "a.psf")


def foreign_store(folder: Path) -> None:
    import zarr

    group = zarr.create_group(folder / "a.zarr")
    group.create_array("sky", data=IMAGE.astype("f8"), chunks=(16, 16))
    group.create_array("flags", data=MASK.astype("u1"), chunks=(40, 11))


# Uses


def use_exposure(name: str, **options: Any) -> Callable[[Path], Any]:
    """Read an exposure whole and in blocks, look at it, and write and read it again."""

    def use(folder: Path) -> Any:
        found = read_exposure(folder / name, **options)
        repr(found), found._repr_html_()
        whole = found.compute()
        _check_blocks(found, whole)
        planes = [(n, p.dtype.str, digest(p)) for n, p in whole.planes.items()]
        if planes[0][-1] < "4":  # of a hash: one in four
            _check_run(found, whole, folder / "out.fits")
        psf = whole.psf and psf_image(whole.psf, whole.bbox.x0 + 5, whole.bbox.y0 + 5)
        facts = [whole.bbox, dict(whole.mask_planes), repr(whole.psf), psf, whole.wcs is None]
        return facts, planes

    return use


def unchanged(sub: Exposure, expanded: Exposure, full_bbox: Box) -> Exposure:
    return sub


def _check_run(found: Exposure, whole: Exposure, path: Path) -> None:
    """Map the exposure to a file of its own, and read that."""
    floats = found.astype("f8" if found.image.dtype.itemsize > 4 else "f4")
    result = map_reduce(floats, unchanged, grid=GridConfig(16, border=2), reducer="copy")
    result.write(path)
    back = read_exposure(path).compute().image
    known = ~np.isnan(back)
    if not np.array_equal(back[known], whole.image.astype(back.dtype)[known]):
        raise Inconsistent("the image that a run has written differs from that which it was given")


def _check_blocks(found: Exposure, whole: Exposure) -> None:
    box = found.bbox
    for part in (
        Box(box.x0 + box.width // 3, box.y0, max(1, box.width // 2), max(1, box.height // 3)),
        Box(box.x0, box.y0 + box.height - 1, 1, 1),
    ):
        some, same = found.cutout(part).compute(), whole.cutout(part)
        for name, plane in some.planes.items():
            if not np.array_equal(plane, same.planes[name], equal_nan=plane.dtype.kind == "f"):
                raise Inconsistent(f"{name} of {part} differs from that of the whole")


def use_psfex(folder: Path) -> Any:
    psf = read_psfex(folder / "a.psf")
    return [psf_image(psf, *xy) for xy in ((0, 0), (20, 30))]


def psf_image(psf: Any, x: int, y: int) -> str:
    """Return the image of a PSF, or why there is none: a model may be good for nothing."""
    try:
        return digest(psf.compute_image(x, y))
    except (ValueError, IndexError) as error:
        return str(error)


def digest(array: Any) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]


DOORS = (
    Door("ours.fits", lambda f: exposure(cell_psf()).write(f / "a.fits"), use_exposure("a.fits")),
    Door("ours.fits.fz", lambda f: exposure().write(f / "a.fits.fz"), use_exposure("a.fits.fz")),
    Door(
        "ours rice",
        lambda f: exposure().write(f / "a.fits.fz", compression="rice", tile=16),
        use_exposure("a.fits.fz"),
    ),
    Door("ours.zarr", lambda f: exposure().write(f / "a.zarr", chunks=16), use_exposure("a.zarr")),
    Door(
        "foreign.zarr",
        foreign_store,
        use_exposure("a.zarr", image="sky", mask="flags"),
        sparse=True,
    ),
    Door("scaled integers", multi_extension, use_exposure("a.fits")),
    Door("scaled.fits.gz", zipped, use_exposure("a.fits.gz")),
    Door("hcompress, plio", packed("HCOMPRESS_1", "PLIO_1", "i2"), use_exposure("a.fits.fz")),
    Door("rice, gzip", packed("RICE_1", "GZIP_1", "u1"), use_exposure("a.fits.fz")),
    Door("afw", afw, use_exposure("a.fits")),
    Door(
        "decam",
        decam,
        lambda f: use_exposure("c4d_ooi_z.fits.fz", ccd="N2", psf=f / "a.psf")(f),
    ),
    Door("psfex", psfex, use_psfex),
)
"""Another reader is fuzzed by one more of these."""
