"""Reading exposures of the NOIRLab Community Pipeline."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from mapreduce import Box, GaussianPsf, read_exposure
from mapreduce.io.psf import read_psfex

IMAGE = np.arange(12, dtype="f4").reshape(3, 4)
WEIGHT = np.full((3, 4), 0.25, "f4")
WEIGHT[2, 3] = 0
CODES = np.arange(12, dtype="i2").reshape(3, 4)
NAMES = [None, "BAD", "NO_DATA", "SAT", "BLEED", "CR", "SUSPECT", "TRANSIENT", "STREAK"]


def triple(
    folder,
    name="c4d_170316_oo{}_z_v1.fits",
    *,
    instrument="DECam",
    version="V4.8.2a",
    ccds=("N2",),
    quality=CODES,
    kinds="iwd",
    pack=False,
):
    """Write image, weight and quality files; CCD number k of the list is 10 + k."""
    primary = {"INSTRUME": instrument, "PLVER": version, "EXPNUM": 77, "EXPTIME": 30.0}
    arrays = {"i": IMAGE, "w": WEIGHT, "d": quality}
    for kind in kinds:
        hdus = [fits.PrimaryHDU(header=fits.Header(primary))]
        for number, ccd in enumerate(ccds):
            header = fits.Header({"CCDNUM": 10 + number, "LTV1": -3.0})
            array = arrays[kind] + number if kind == "i" else arrays[kind]
            if pack:
                hdu = fits.CompImageHDU(array, header, ccd, "GZIP_1", quantize_level=0)
            else:
                hdu = fits.ImageHDU(array, header, name=ccd)
            hdus.append(hdu)
        fits.HDUList(hdus).writeto(folder / name.format(kind))
    return folder / name.format("i")


def planes_of(exposure, y, x):
    value = int(np.asarray(exposure.mask)[y, x])
    return {name for name, bit in exposure.mask_planes.items() if value >> bit & 1}


@pytest.mark.slow
@pytest.mark.parametrize("pack", [False, True])
def test_a_triple(tmp_path, pack):
    path = triple(tmp_path, pack=pack)
    exposure = read_exposure(path)
    assert exposure.bbox == Box(0, 0, 4, 3)  # LTV is of the raw CCD
    assert exposure.mask_planes["SAT"] == 1
    assert exposure.mask_planes["BLEED"] == 11
    np.testing.assert_array_equal(exposure.image, IMAGE)
    variance = np.full((3, 4), 4.0, "f4")
    variance[2, 3] = np.inf
    np.testing.assert_array_equal(exposure.variance, variance)
    assert exposure.variance.dtype == np.float32
    found = [planes_of(exposure, *divmod(code, 4)) for code in range(12)]
    assert found[:9] == [{name} - {None} for name in NAMES]
    assert found[9:11] == [{"BAD"}, {"BAD"}]
    assert found[11] == {"BAD"}
    assert exposure.meta["EXPTIME"] == 30


@pytest.mark.parametrize(
    ("instrument", "version", "kind"),
    [
        ("DECam", "V3.5.0", "codes"),
        ("DECam", "V3.4.9", "bits"),
        ("DECam", "V2.9.0DES", "bits"),
        ("DECam", "V10.1", "codes"),
        ("90prime", "V1.0", "codes"),
        ("mosaic3", "V2.3", "codes"),
    ],
)
def test_codes_or_bits(tmp_path, instrument, version, kind):
    path = triple(tmp_path, instrument=instrument, version=version)
    expected = {"codes": {"BLEED"}, "bits": {"INTRP"}}[kind]
    assert planes_of(read_exposure(path), 1, 0) == expected
    assert planes_of(read_exposure(path, quality_kind="codes"), 1, 0) == {"BLEED"}


def test_bits(tmp_path):
    bits = np.array([[0, 1, 2, 4], [16, 64, 128, 2 | 16], [8, 8 | 64, -(2**15), 0]], np.int16)
    exposure = read_exposure(triple(tmp_path, version="V3.1", quality=bits))
    found = [[planes_of(exposure, y, x) for x in range(4)] for y in range(3)]
    assert found == [
        [set(), {"BAD"}, {"SAT"}, {"INTRP"}],
        [{"CR"}, {"BLEED"}, {"TRANSIENT"}, {"SAT", "CR"}],
        [{"BAD"}, {"BAD", "BLEED"}, {"BAD"}, {"BAD"}],
    ]


@pytest.mark.parametrize("version", ["", "next"])
def test_a_version_that_says_nothing(tmp_path, version):
    path = triple(tmp_path, version=version)
    with pytest.raises(ValueError, match=f"INSTRUME 'DECam' and PLVER '{version}'.*quality_kind="):
        read_exposure(path)
    assert planes_of(read_exposure(path, quality_kind="bits"), 0, 2) == {"SAT"}
    with pytest.raises(ValueError, match='quality_kind is "codes" or "bits", got \'both\''):
        read_exposure(path, quality_kind="both")


def test_choosing_a_ccd(tmp_path):
    path = triple(tmp_path, ccds=("N2", "S4"))
    with pytest.raises(ValueError, match=r"several CCDs; choose one with ccd=: N2 \(10\), S4"):
        read_exposure(path)
    for ccd in ("S4", "s4", 11):
        np.testing.assert_array_equal(read_exposure(path, ccd=ccd).image, IMAGE + 1)
    with pytest.raises(KeyError, match=r"no CCD 'S9'; names \(and CCDNUM\): N2 \(10\), S4 \(11\)"):
        read_exposure(path, ccd="S9")
    with pytest.raises(KeyError, match="no CCD 1;"):
        read_exposure(path, ccd=1)


def test_siblings_with_other_names(tmp_path):
    image = triple(tmp_path, "k4m_oki_z.fits".replace("oki", "ok{}"), instrument="mosaic3")
    triple(tmp_path, "k4m_oo{}_z.fits.fz", kinds="wd", pack=True, instrument="mosaic3")
    exposure = read_exposure(image)
    np.testing.assert_array_equal(exposure.variance[0], [4, 4, 4, 4])
    assert planes_of(exposure, 1, 1) == {"CR"}


def test_a_sibling_that_is_missing(tmp_path):
    path = triple(tmp_path, kinds="iw")
    with pytest.raises(FileNotFoundError, match=r"no quality file.*c4d_170316_ood_z.*quality=None"):
        read_exposure(path)
    exposure = read_exposure(path, quality=None)
    assert planes_of(exposure, 2, 3) == {"BAD"}
    assert planes_of(exposure, 1, 0) == set()
    exposure = read_exposure(path, quality=None, weight=None)
    assert exposure.variance is None
    assert exposure.mask is None


def test_siblings_named_by_the_caller(tmp_path):
    path = triple(tmp_path)
    path = path.rename(tmp_path / "image.fits")
    with pytest.raises(ValueError, match=r"image\.fits is not named like .* weight=path"):
        read_exposure(path, format="decam")
    weight, quality = (tmp_path / f"c4d_170316_oo{k}_z_v1.fits" for k in "wd")
    exposure = read_exposure(path, format="decam", weight=weight, quality=str(quality))
    assert planes_of(exposure, 0, 3) == {"SAT"}
    with pytest.raises(FileNotFoundError, match=r"none\.fits"):
        read_exposure(path, format="decam", weight=tmp_path / "none.fits", quality=None)


def test_a_sibling_without_the_ccd(tmp_path):
    path = triple(tmp_path, kinds="id")
    triple(tmp_path, kinds="w", ccds=("S4",))
    with pytest.raises(ValueError, match=r"oow_z_v1\.fits has 0 HDUs N2 .*there are .* 1 S4"):
        read_exposure(path)


def test_quality_of_floats(tmp_path):
    with pytest.raises(TypeError, match="holds float32; data quality is of integers"):
        read_exposure(triple(tmp_path, quality=IMAGE))


def test_other_files_with_a_pipeline_version(tmp_path):
    path = triple(tmp_path).rename(tmp_path / "mine.fits")
    np.testing.assert_array_equal(read_exposure(path).image, IMAGE)


def test_a_psfex_file(tmp_path):
    path = triple(tmp_path)
    y, x = np.mgrid[-5:6, -5:6]
    columns = [
        fits.Column("psf_mask", "121D", dim="(11,11,1)", array=np.zeros((2, 1, 11, 11))),
        fits.Column("psf_samp", "D", array=[1.0, 1.0]),
        fits.Column("polnaxis", "J", array=[0, 0]),
        fits.Column("ccdname", "3A", array=["N2", "S4"]),
        fits.Column("expnum", "J", array=[77, 77]),
    ]
    table = fits.BinTableHDU.from_columns(columns)
    table.data["psf_mask"][0, 0] = np.exp(-(x**2 + y**2) / 4.5)
    table.data["psf_mask"][1, 0, 5, 5] = 1
    table.writeto(tmp_path / "psfex.fits")
    exposure = read_exposure(path, psf=tmp_path / "psfex.fits")
    assert exposure.psf.sigma() == pytest.approx(GaussianPsf(1.5).sigma(), rel=0.01)


# Real files


def check(path, exposure, block):
    """Compare a cut-out and the WCS with what astropy reads."""
    part = exposure.cutout(block).compute()
    slices = block.slices(exposure.bbox)
    with fits.open(path) as hdus:
        np.testing.assert_array_equal(part.image, hdus[1].data[slices])
        wcs = WCS(hdus[1].header)
    weight = fits.getdata(str(path).replace("_ooi_", "_oow_"))[slices]
    codes = fits.getdata(str(path).replace("_ooi_", "_ood_"))[slices]
    known = weight > 0
    np.testing.assert_array_equal(np.isinf(part.variance), ~known)
    np.testing.assert_array_equal(part.variance[known], 1 / weight[known].astype("f4"))
    for code, name in enumerate(NAMES):
        if name not in (None, "BAD"):
            flagged = (part.mask & part.mask_planes.bitmask(name)) != 0
            np.testing.assert_array_equal(flagged, codes == code)
    bad = (part.mask & part.mask_planes.bitmask("BAD")) != 0
    np.testing.assert_array_equal(bad, ~known | (codes == NAMES.index("BAD")))
    x, y = np.random.default_rng(0).uniform(-5, 300, (2, 6))
    np.testing.assert_allclose(
        exposure.wcs.all_pix2world(x, y, 0), wcs.all_pix2world(x, y, 0), rtol=0, atol=1e-12
    )


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["single", "pairs"])
def test_decam(shared, folder):
    paths = sorted((shared / "data/exposures/decam_cp" / folder).glob("*_ooi_*.[NS][0-9].fits"))
    assert len(paths) == {"single": 1, "pairs": 6}[folder]
    for path in paths:
        psf = path.with_name(f"{path.name.split('.')[0]}-psfex.fits")
        exposure = read_exposure(path, psf=psf)
        check(path, exposure, Box(9, 17, 85, 70))
        assert exposure.psf == read_psfex(psf)
        assert exposure.wcs.to_header()["CTYPE1"] == "RA---TPV"
        assert exposure.meta["INSTRUME"] == "DECam"
        assert "DETPOS" in exposure.meta


def test_decam_psf_of_another_exposure(shared):
    folder = shared / "data/exposures/decam_cp/pairs"
    with pytest.raises(ValueError, match="fit expnum=790643, ccdname=S4"):
        read_exposure(
            folder / "c4d_181104_072440_ooi_g_ls9.S4.fits",
            psf=folder / "c4d_181214_050844_ooi_g_ls9-psfex.fits",
        )


def test_90prime(shared):
    paths = sorted((shared / "data/exposures/mosaic3_90prime").glob("*_ooi_*.fits"))
    assert len(paths) == 6
    for path in paths:
        exposure = read_exposure(path)
        check(path, exposure, Box(5, 6, 50, 51))
        assert exposure.meta["BUNIT"] == "ADU"
        ccd = exposure.meta["CCDNAME"]
        assert read_exposure(path, ccd=ccd).bbox == exposure.bbox
