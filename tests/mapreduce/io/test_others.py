"""What we write, others read: astropy, fitsio, funpack, zarr and xarray, with values and units."""

from __future__ import annotations

import shutil
import subprocess

import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.wcs import WCS

from mapreduce import KernelPsf, read_exposure
from tests.support import PLANES, make_full

FITS = {
    "a.fits": {},
    "a.fits.fz": {},
    "b.fits.fz": {"compression": "rice"},
    "c.fits": {"compression": "gzip", "tile": 16},
}
ZARR = {
    "a.zarr": {},
    "b.zarr": {"compression": "zstd", "chunks": 32},
    "c.zarr": {"compression": None, "chunks": (20, 30)},
}
WAYS = FITS | ZARR
FITS_READERS = ("astropy", "fitsio")
ZARR_READERS = ("zarr", "xarray", "xarray, consolidated")
INTEGERS = ("u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8")
MASKS = ("bool", *INTEGERS)
UNITS = {"image": u.MJy / u.sr, "variance": (u.MJy / u.sr) ** 2}


def make(image="f4", variance="f4", mask="i4"):
    """Make an exposure of these dtypes, with everything beside its pixels."""
    exposure = make_full(psf=KernelPsf(np.eye(5)))
    meta = exposure.meta | {"BUNIT": "MJy/sr"}
    values = exposure.image
    if image in INTEGERS:
        least, most = np.iinfo(image).min, min(np.iinfo(image).max, 2**63 - 1)  # fitsio's limit
        values = np.random.default_rng(0).integers(least, most, exposure.shape, image)
        values[0, :2] = least, most
    bits = (exposure.mask % 2**7).astype(mask)
    return exposure.replace(
        image=values.astype(image),
        variance=exposure.variance.astype(variance),
        mask=bits,
        meta=meta,
    )


def open_by(reader, path):
    """Return arrays and units of the planes as a reader of others finds them."""
    if reader == "astropy":
        with fits.open(path, memmap=False, checksum=True) as hdus:  # warns if one is wrong
            hdus.verify("exception")
            return {
                name: (hdus[name.upper()].data, hdus[name.upper()].header.get("BUNIT"))
                for name in PLANES
            }
    if reader == "fitsio":
        with pytest.importorskip("fitsio").FITS(path) as file:
            for hdu in file:  # the PSF's, too
                assert {"CHECKSUM", "DATASUM"} <= set(hdu.read_header().keys())
                hdu.verify_checksum()
                assert not hdu.has_data() or len(hdu.read())
            hdus = {name: file[name.upper()] for name in PLANES}
            return {n: (hdu.read(), hdu.read_header().get("BUNIT")) for n, hdu in hdus.items()}
    if reader == "zarr":
        group = pytest.importorskip("zarr").open_group(path, mode="r", use_consolidated=True)
        return {name: (group[name][:], group[name].attrs.get("units")) for name in PLANES}
    consolidated = reader == "xarray, consolidated"
    xarray = pytest.importorskip("xarray")
    with xarray.open_zarr(path, consolidated=consolidated, chunks=None) as data:
        assert {data[name].dims for name in PLANES} == {("y", "x")}
        return {name: (data[name].values, data[name].attrs.get("units")) for name in PLANES}


def check(path, exposure):
    exposure.write(path, **WAYS[path.name])
    ours = read_exposure(path).compute()
    lossy = WAYS[path.name].get("compression") == "rice"
    for reader in FITS_READERS if path.name in FITS else ZARR_READERS:
        for plane, (values, unit) in open_by(reader, path).items():
            written = getattr(exposure, plane)
            expected = getattr(ours, plane) if lossy and written.dtype.kind == "f" else written
            np.testing.assert_array_equal(values, expected, err_msg=f"{plane} by {reader}")
            if (reader, written.dtype) != ("fitsio", "u8"):
                assert values.dtype.newbyteorder("=") == written.dtype, reader
            assert (unit is None) if plane == "mask" else (u.Unit(unit) == UNITS[plane]), reader


@pytest.mark.slow
@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize("image", [*INTEGERS, "f4", "f8"])
def test_images_of_every_dtype(tmp_path, name, image):
    check(tmp_path / name, make(image=image))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a.fits", "a.fits.fz", "a.zarr"])
@pytest.mark.parametrize("mask", MASKS)
def test_masks_of_every_dtype(tmp_path, name, mask):
    exposure = make(variance="f8", mask=mask)
    assert exposure.mask.dtype == "i4"
    check(tmp_path / name, exposure)


def test_half_precision(tmp_path):
    check(tmp_path / "a.zarr", make(image="f2"))


@pytest.mark.parametrize("name", FITS)
def test_headers(tmp_path, name):
    """Cards, WCS, origin and mask planes, as astropy and fitsio read them."""
    exposure = make()
    exposure.write(tmp_path / name, **FITS[name])
    with pytest.importorskip("fitsio").FITS(tmp_path / name) as file:
        primary = file[0].read_header()
        mask = file["MASK"].read_header()
    for key, value in exposure.meta.items():
        assert primary[key.upper()] == value, key
    for plane, bit in exposure.mask_planes.items():
        assert mask[f"MP_{plane.upper()}"] == bit
    assert {mask[f"MSKN{i:04d}"] for i in range(4)} == set(exposure.mask_planes)
    pixels = np.array([[0, 0], [5, 60]])
    parent = pixels + exposure.origin
    for plane in PLANES:
        header = fits.getheader(tmp_path / name, plane.upper())
        assert (header["EXTNAME"], header["INHERIT"]) == (plane.upper(), True)
        np.testing.assert_allclose(
            WCS(header).all_pix2world(pixels, 0), exposure.wcs.all_pix2world(parent, 0), atol=1e-12
        )
        np.testing.assert_array_equal(WCS(header, key="A").all_pix2world(pixels, 0), parent)
        # IRAF's physical coordinates, of which DS9 tells, count from 1 where ours count from 0.
        matrix = np.array([[header.get(f"LTM{i}_{j}", i == j) for j in (1, 2)] for i in (1, 2)])
        physical = (pixels + 1 - [header["LTV1"], header["LTV2"]]) @ np.linalg.inv(matrix)
        np.testing.assert_array_equal(physical, parent + 1)


@pytest.mark.parametrize("name", FITS)
def test_funpack(tmp_path, name):
    if shutil.which("funpack") is None:
        pytest.skip("there is no funpack, a command of cfitsio")
    exposure = make(image="i8")
    exposure.write(tmp_path / name, **FITS[name])
    subprocess.run(["funpack", "-O", tmp_path / "unpacked.fits", tmp_path / name], check=True)
    np.testing.assert_array_equal(
        read_exposure(tmp_path / "unpacked.fits").compute().image, exposure.image
    )


@pytest.mark.parametrize("consolidated", [True, False])
def test_xarray_knows_where_pixels_are(tmp_path, consolidated):
    xarray = pytest.importorskip("xarray")
    exposure = make()
    exposure.write(tmp_path / "a.zarr")
    exposure.cutout(exposure.bbox.grow(-10)).write(tmp_path / "b.zarr")
    data, part = (
        xarray.open_zarr(tmp_path / name, consolidated=consolidated, chunks=None)
        for name in ("a.zarr", "b.zarr")
    )
    x0, y0 = exposure.origin
    assert data.image.sel(x=x0 + 5, y=y0 + 9).item() == exposure.image[9, 5]
    assert data.attrs["origin"] == [x0, y0]
    assert data.mask.attrs["mask_planes"] == dict(exposure.mask_planes)
    assert data.fits.dims == ("byte",)
    both = data.mask - part.mask  # over what they share
    assert both.shape == part.mask.shape
    assert not both.any()
