"""Reading LSST exposures: afw and lsst.images files, old and new."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from mapreduce import Box, MaskPlanes, read_exposure

IMAGE = np.arange(12, dtype="f4").reshape(3, 4)
MASK = (np.arange(12, dtype="i4") % 7).reshape(3, 4)
PLANES = {"MP_BAD": 0, "MP_SAT": 1, "HIERARCH MP_CROSSTALK": 8}
ORIGIN = {"CRPIX1A": 1.0, "CRPIX2A": 1.0, "CRVAL1A": 100.0, "CRVAL2A": -20.0}


def write(path, *, names="EXTNAME", cards=(), planes=PLANES, mask=MASK, primary=(), pack=False):
    """Write image, mask and variance as afw does, with names or without."""
    hdus = [fits.PrimaryHDU(header=fits.Header(primary))]
    for name, array in (("IMAGE", IMAGE), ("MASK", mask), ("VARIANCE", IMAGE + 1)):
        header = fits.Header(dict(cards))
        if name == "MASK":
            header.update(planes)
        hdus.append(
            fits.CompImageHDU(array, header, tile_shape=(2, 2)) if pack else fits.ImageHDU(array)
        )
        hdus[-1].header.update(header)
        if names:
            hdus[-1].header[names] = name
    fits.HDUList(hdus).writeto(path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("pack", [False, True])
@pytest.mark.parametrize("names", ["EXTNAME", "EXTTYPE", None])
def test_planes_by_name_by_type_and_by_order(tmp_path, names, pack):
    exposure = read_exposure(write(tmp_path / "a.fits", names=names, cards=ORIGIN, pack=pack))
    assert exposure.bbox == Box(100, -20, 4, 3)
    assert exposure.mask_planes == MaskPlanes({"BAD": 0, "SAT": 1, "CROSSTALK": 8})
    exposure = exposure.cutout(Box(101, -19, 2, 2)).compute()
    np.testing.assert_allclose(exposure.image, IMAGE[1:3, 1:3], atol=1e-3)
    np.testing.assert_allclose(exposure.variance, IMAGE[1:3, 1:3] + 1, atol=1e-3)
    np.testing.assert_array_equal(exposure.mask, MASK[1:3, 1:3])


def test_the_very_old_form_starts_in_the_primary_hdu(tmp_path):
    hdus = [fits.PrimaryHDU(IMAGE), fits.ImageHDU(MASK.astype("u2")), fits.ImageHDU(IMAGE + 1)]
    hdus[0].header["LTV1"] = -7
    hdus[1].header["MP_BAD"] = 0
    fits.HDUList(hdus).writeto(tmp_path / "a.fits")
    exposure = read_exposure(tmp_path / "a.fits")
    assert exposure.origin == (7, 0)
    assert exposure.mask.dtype == np.int32
    np.testing.assert_array_equal(exposure.mask, MASK)
    np.testing.assert_array_equal(exposure.variance, IMAGE + 1)


def test_a_file_of_an_image_alone(tmp_path):
    hdu = fits.ImageHDU(IMAGE, fits.Header({"EXTTYPE": "IMAGE"}))
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(tmp_path / "a.fits")
    exposure = read_exposure(tmp_path / "a.fits")
    assert (exposure.variance, exposure.mask, exposure.wcs, exposure.psf) == (None,) * 4
    assert exposure.origin == (0, 0)


def test_origin_without_a_usable_alternate_wcs_is_ltv(tmp_path):
    cards = ORIGIN | {"CRPIX1A": 2.0, "LTV1": -5, "LTV2": 6.0}
    assert read_exposure(write(tmp_path / "a.fits", cards=cards)).origin == (5, -6)


def test_wcs_is_moved_to_the_parent(tmp_path):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = "RA---TAN", "DEC--TAN"
    wcs.wcs.crval, wcs.wcs.crpix, wcs.wcs.cdelt = (30, 40), (2, 3), (1e-4, 1e-4)
    path = write(tmp_path / "a.fits", cards=dict(wcs.to_header()) | ORIGIN)
    np.testing.assert_allclose(
        read_exposure(path).wcs.all_pix2world([[100, -20]], 0), wcs.all_pix2world([[0, 0]], 0)
    )


def test_addresses_in_the_file_are_not_header_cards(tmp_path):
    primary = {"HIERARCH EXPINFO_V": 2, "AR_HDU": 5, "WCS_ID": 1, "HIERARCH ARCHIVE_ID_SKYWCS": 1}
    primary |= {"HIERARCH SKYWCS_ID": 1, "EXPTIME": 30.0, "PROP_ID": 7}
    meta = read_exposure(write(tmp_path / "a.fits", primary=primary)).meta
    assert dict(meta) == {"EXPTIME": 30.0, "PROP_ID": 7}


def lsst_images(path, *masks):
    """Write a file of lsst.images with the planes (names) of each mask HDU."""
    hdus = [
        fits.PrimaryHDU(
            header=fits.Header({"DATAMODL": "https://images.lsst.io/schemas/visit_image-1.0.0"})
        ),
        fits.CompImageHDU(IMAGE, name="IMAGE", tile_shape=(3, 4), quantize_level=0),
    ]
    for version, names in enumerate(masks, start=1):
        header = fits.Header({"EXTVER": version})
        for bit, name in enumerate(names):
            header[f"MSKN{bit:04d}"] = name
            header[f"MSKM{bit:04d}"] = 1 << bit
            header[f"MSKD{bit:04d}"] = "what it means"
        hdus.append(fits.ImageHDU(MASK << (version - 1), header, "MASK"))
    fits.HDUList([*hdus[:2], *hdus[:1:-1]]).writeto(path)  # the last mask first
    return path


def test_lsst_images(tmp_path):
    path = lsst_images(tmp_path / "a.fits", ["NO_DATA", "SATURATED", "COSMIC_RAY"])
    exposure = read_exposure(path)
    assert exposure.mask_planes == MaskPlanes({"NO_DATA": 0, "SAT": 1, "CR": 2})
    np.testing.assert_array_equal(exposure.mask, MASK)
    assert "DATAMODL" not in exposure.meta


def test_masks_in_several_hdus_become_one(tmp_path):
    path = lsst_images(tmp_path / "a.fits", ["A", "B"], ["C", "D", "E", "F"])
    exposure = read_exposure(path)
    assert exposure.mask_planes == MaskPlanes({name: bit for bit, name in enumerate("ABCDEF")})
    np.testing.assert_array_equal(exposure.mask, (MASK & 3) | ((MASK << 1) & 15) << 2)
    exposure = read_exposure(path, keep_planes=["E", "B"])
    assert exposure.mask_planes == MaskPlanes({"B": 1, "E": 0})
    expected = ((MASK << 1 >> 2) & 1) | (MASK & 2)
    np.testing.assert_array_equal(exposure.mask, expected)


def test_more_mask_planes_than_bits(tmp_path):
    names = [f"P{i}" for i in range(40)]
    path = lsst_images(tmp_path / "a.fits", names[:30], names[30:])
    with pytest.warns(UserWarning, match="28 mask planes beside ours; left out are P28, P29, P30"):
        exposure = read_exposure(path)
    assert exposure.with_mask_planes("BAD", "NO_DATA", "INVALID_MAPREDUCE").compute()
    assert read_exposure(path, keep_planes=["P0", "P39"]).mask_planes["P39"] == 1
    with pytest.raises(KeyError, match="no mask plane 'Q'"):
        read_exposure(path, keep_planes=["Q"])
    with pytest.raises(ValueError, match="of 40 mask planes int32 holds 31; choose fewer"):
        read_exposure(path, keep_planes=names)


def test_files_without_an_image_or_with_two(tmp_path):
    hdus = [fits.PrimaryHDU(header=fits.Header({"AR_HDU": 5}))]
    fits.HDUList(hdus).writeto(tmp_path / "a.fits")
    with pytest.raises(ValueError, match="has no HDU IMAGE; there are 0 - "):
        read_exposure(tmp_path / "a.fits")
    hdus += [fits.ImageHDU(IMAGE, name="IMAGE") for _ in range(2)]
    fits.HDUList(hdus).writeto(tmp_path / "b.fits")
    with pytest.raises(ValueError, match="several HDUs IMAGE.*format="):
        read_exposure(tmp_path / "b.fits")


def test_a_psf_that_cannot_be_read_is_named(tmp_path):
    path = write(tmp_path / "a.fits", primary={"AR_HDU": 5, "PSF_ID": 3})
    columns = [
        fits.Column("id", "J", array=[3]),
        *(fits.Column(n, "J", array=[0]) for n in ("cat.archive", "cat.persistable", "row0")),
        fits.Column("name", "8A", array=["PiffPsf"]),
    ]
    with fits.open(path, mode="append") as hdus:
        hdus.append(fits.BinTableHDU.from_columns(columns))
    with pytest.warns(UserWarning, match="the PSF is a PiffPsf, which only LSST's code can read"):
        exposure = read_exposure(path)
    assert exposure.psf is None
    assert exposure.meta["PSFCLASS"] == "PiffPsf"


# Real files


def check_against_astropy(path, exposure, block):
    """Compare a cut-out and the WCS with what astropy reads."""
    with fits.open(path) as hdus:
        expected = [np.array(hdu.section[block.slices(exposure.bbox)]) for hdu in hdus[1:4]]
        wcs = WCS(hdus[1].header)
    part = exposure.cutout(block).compute()
    for plane, array in zip((part.image, part.mask, part.variance), expected, strict=True):
        np.testing.assert_array_equal(plane, array)
    x, y = np.random.default_rng(0).uniform(0, 200, (2, 5))
    sky = wcs.all_pix2world(x, y, 0)
    found = exposure.wcs.all_pix2world(x + exposure.origin[0], y + exposure.origin[1], 0)
    np.testing.assert_allclose(found, sky, rtol=0, atol=1e-12)


@pytest.mark.filterwarnings("ignore:'unitfix' made the change|'datfix' made the change")
def test_hsc(shared):
    path = shared / "data/exposures/hsc/HSC-0908120-056-small.fits"
    exposure = read_exposure(path)
    assert exposure.bbox == Box(100, 100, 200, 200)
    assert exposure.mask.dtype == np.int32
    assert exposure.mask_planes["CROSSTALK"] == 8
    assert exposure.mask_planes["NO_DATA"] == 9
    assert exposure.psf is None
    assert "WCS_ID" not in exposure.meta
    check_against_astropy(path, exposure, Box(130, 210, 50, 60))


def test_hsc_with_every_component(shared):
    path = shared / "data/exposures/hsc/exposure-version-2.fits"
    exposure = read_exposure(path)
    assert exposure.meta["DETNAME"] == "detector 1"
    check_against_astropy(path, exposure, Box(2, 3, 5, 6))


@pytest.mark.slow
def test_megacam(shared):
    path = shared / "data/exposures/megacam_calexp/calexp-849375-12.fits.fz"
    exposure = read_exposure(path)
    assert exposure.bbox == Box(0, 0, 2048, 4612)
    assert exposure.mask_planes["NO_DATA"] == 8
    check_against_astropy(path, exposure, Box(1000, 4000, 300, 200))
    psf = exposure.psf
    with fits.open(path) as hdus:
        table = hdus[12].data[0]
        np.testing.assert_array_equal(psf.planes.ravel(), table["_comp"])
        assert psf.offset == tuple(table["_context_first"])
    assert (psf.degree, psf.sampling) == (2, 0.5)
    image = psf.compute_kernel_image(*psf.average_position)
    assert image.sum() == pytest.approx(1)
    assert 1 < psf.sigma() < 3
