from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
from astropy.io import fits

from mapreduce.exposure.box import Box
from mapreduce.exposure.cell_psf import CellPsf, PsfComponent
from mapreduce.exposure.psf import (
    DoubleGaussianPsf,
    GaussianPsf,
    KernelPsf,
    Psf,
    PsfexPsf,
)
from mapreduce.io.psf import psf_from_hdus, psf_to_hdus, read_psfex

RNG = np.random.default_rng(5)
PLANES = RNG.uniform(0, 1, (3, 5, 5))
CARDS = {
    "POLNAXIS": 2,
    "POLGRP1": 1,
    "POLNAME1": "X_IMAGE",
    "POLZERO1": 101.0,
    "POLSCAL1": 50.0,
    "POLGRP2": 1,
    "POLNAME2": "Y_IMAGE",
    "POLZERO2": 201.0,
    "POLSCAL2": 60.0,
    "POLNGRP": 1,
    "POLDEG1": 1,
    "PSF_SAMP": 0.9,
    "PSFNAXIS": 3,
    "PSFAXIS1": 5,
    "PSFAXIS2": 5,
    "PSFAXIS3": 3,
}


def mask_column(planes, name="PSF_MASK"):
    shape = planes.shape[1:]
    dim = f"({','.join(map(str, shape[::-1]))})" if len(shape) > 1 else None
    return fits.Column(name, f"{math.prod(shape)}D", dim=dim, array=planes)


def psfex_hdu(planes=PLANES, name="PSF_DATA", **cards):
    hdu = fits.BinTableHDU.from_columns([mask_column(planes[np.newaxis])], name=name)
    hdu.header.update({k: v for k, v in {**CARDS, **cards}.items() if v is not None})
    return hdu


def write(path, *hdus):
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(path)
    return path


def merged_file(path):
    """Row N1 is the model of `psfex_hdu`, padded; row N2 is constant; the fit of row N3 failed."""
    padded = np.zeros((3, 6, 7, 7))
    padded[0, :3, :5, :5] = PLANES
    padded[1, :1] = 1.0
    values = {name: [value] * 3 for name, value in CARDS.items()}
    values["POLNAXIS"] = [2, 0, 2]
    values["POLNAME1"] = ["X_IMAGE", "fake", "X_IMAGE"]
    values["PSFAXIS1"] = values["PSFAXIS2"] = [5, 7, 7]
    values["PSFAXIS3"] = [3, 1, 6]
    values["PSF_SAMP"] = [0.9, 1.0, 0.0]
    values["EXPNUM"] = [11, 11, 12]
    values["CCDNAME"] = ["N1 ", "N2", "N3"]
    formats = {int: "K", float: "D", str: "8A"}
    columns = [
        fits.Column(name.lower(), formats[type(column[0])], array=column)
        for name, column in values.items()
    ]
    return write(path, fits.BinTableHDU.from_columns([*columns, mask_column(padded, "psf_mask")]))


MODEL = PsfexPsf(PLANES, 1, offset=(101, 201), scale=(50, 60), sampling=0.9, origin=(-1, -1))


# PSFEx files


def test_psf_file(tmp_path):
    psf = read_psfex(write(tmp_path / "a.psf", psfex_hdu()))
    assert psf == MODEL
    assert psf.average_position == (100.0, 200.0)


def test_file_with_nameless_table_and_few_cards(tmp_path):
    hdu = psfex_hdu(name=None, POLNAXIS=None, PSFAXIS1=None, PSFAXIS2=None)
    assert read_psfex(write(tmp_path / "a.psf", hdu)) == MODEL


def test_flat_column_takes_its_shape_from_the_cards(tmp_path):
    assert read_psfex(write(tmp_path / "a.psf", psfex_hdu(PLANES.ravel()))) == MODEL


def test_origin_moves_the_model(tmp_path):
    psf = read_psfex(write(tmp_path / "a.psf", psfex_hdu()), origin=(1000, 2000))
    assert psf.average_position == (1100.0, 2200.0)
    np.testing.assert_array_equal(
        psf.compute_image(1130, 2210), MODEL.compute_image(130, 210)
    )  # fmt: skip


@pytest.mark.parametrize("shape", [(1, 5, 5), (5, 5)])
def test_constant_model(tmp_path, shape):
    cards = dict.fromkeys([name for name in CARDS if name.startswith("POL")])
    hdu = psfex_hdu(PLANES[0].reshape(shape), **{**cards, "POLNAXIS": 0, "PSFAXIS3": 1})
    psf = read_psfex(write(tmp_path / "a.psf", hdu), origin=(30, 40))
    assert psf.degree == 0
    assert psf.average_position == (30.0, 40.0)
    np.testing.assert_array_equal(psf.planes, PLANES[:1])


def test_merged_table(tmp_path):
    path = merged_file(tmp_path / "merged.fits")
    assert read_psfex(path, ccdname="N1") == MODEL
    assert read_psfex(path, ccdname="N1", expnum=11) == MODEL
    constant = read_psfex(path, ccdname="N2")
    assert (constant.degree, constant.planes.shape) == (0, (1, 7, 7))


def test_merged_table_errors(tmp_path):
    path = merged_file(tmp_path / "merged.fits")
    rows = "rows: 11 N1, 11 N2, 12 N3"
    with pytest.raises(ValueError, match=f"3 of 3 rows fit expnum=None, ccdname=None; {rows}"):
        read_psfex(path)
    with pytest.raises(ValueError, match=f"0 of 3 rows fit expnum=12, ccdname=N1; {rows}"):
        read_psfex(path, ccdname="N1", expnum=12)
    with pytest.raises(ValueError, match=r"merged.fits: PSF_SAMP is 0.0: there is no valid model"):
        read_psfex(path, ccdname="N3")


def test_several_models_in_one_file(tmp_path):
    path = write(tmp_path / "a.psf", psfex_hdu(2 * PLANES), psfex_hdu())
    assert read_psfex(path, hdu=2) == MODEL
    with pytest.raises(ValueError, match=r"several PSFEx models, in HDUs \[1, 2\]; choose"):
        read_psfex(path)
    with pytest.raises(ValueError, match=r"no PSFEx model in HDU 0; there is one in \[1, 2\]"):
        read_psfex(path, hdu=0)


@pytest.mark.parametrize(
    ("cards", "message"),
    [
        ({"POLNAME2": "AIRMASS"}, r"varies with X_IMAGE, AIRMASS in 1 group\(s\)"),
        ({"POLNAXIS": 3, "POLNAME3": "MAG_AUTO"}, "varies with X_IMAGE, Y_IMAGE, MAG_AUTO"),
        ({"POLNGRP": 2}, r"in 2 group\(s\); only X_IMAGE, Y_IMAGE"),
        ({"POLDEG1": None}, "no card or column 'POLDEG1'"),
        ({"POLDEG1": 2}, r"a.psf: a polynomial of degree 2 .* needs 6 planes, got 3"),
        ({"PSF_SAMP": None}, "PSF_SAMP is None"),
    ],
)
def test_models_we_cannot_read(tmp_path, cards, message):
    path = write(tmp_path / "a.psf", psfex_hdu(**cards))
    with pytest.raises(ValueError, match=message):
        read_psfex(path)


def test_ccdname_of_a_file_that_has_none(tmp_path):
    path = write(tmp_path / "a.psf", psfex_hdu())
    with pytest.raises(ValueError, match="has no column ccdname"):
        read_psfex(path, ccdname="N1")


def test_other_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent.psf"):
        read_psfex(tmp_path / "absent.psf")
    text = tmp_path / "text.psf"
    text.write_text("not a FITS file\n" * 300)
    with pytest.raises(ValueError, match=r"text.psf is not a FITS file"):
        read_psfex(text)
    image = write(tmp_path / "image.fits", fits.ImageHDU(np.ones((3, 3)), name="SCI"))
    with pytest.raises(ValueError, match=r"no table with a column PSF_MASK; its HDUs: .*1 SCI"):
        read_psfex(image)


def test_piff_file(shared):
    path = shared / "data/exposures/psf_models/D00240560_r_c01_r2362p01_piff.fits"
    with pytest.raises(ValueError, match="is a Piff file, not a PSFEx one"):
        read_psfex(path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "stem",
    [
        "single/c4d_170316_062107_ooi_z_ls9",
        "pairs/c4d_171113_061941_ooi_r_ls9",
        "pairs/c4d_181214_050844_ooi_g_ls9",
    ],
)
def test_width_of_real_models(shared, stem):
    path = shared / "data/exposures/decam_cp" / f"{stem}-psfex.fits"
    psf = read_psfex(path)
    image = next(path.parent.glob(f"{path.name.removesuffix('-psfex.fits')}.*.fits"))
    # The camera pipeline's own measure; PSFEx's psf_fwhm is twice the half-light radius instead.
    assert psf.fwhm() == pytest.approx(fits.getval(image, "FWHM", ext=1), rel=0.05)
    with fits.open(path) as hdus:
        assert psf.fwhm() == pytest.approx(hdus[1].data["psf_fwhm"][0], rel=0.13)


@pytest.mark.parametrize("name", ["DECam_00154912_12_psfcat.psf", "deep2r_ra352_1-ccd1.psf"])
def test_real_psf_files(shared, name):
    path = shared / "data/exposures/psf_models" / name
    psf = read_psfex(path)
    # PSFEx samples its models at 4.7 per FWHM.
    assert psf.fwhm() == pytest.approx(4.7 * psf.sampling, rel=0.13)
    assert psf.compute_kernel_image().argmax() == psf.compute_kernel_image().size // 2


def test_model_fits_a_real_star_and_its_mirror_images_do_not(shared):
    folder = shared / "data/exposures/decam_cp/single"
    psf = read_psfex(folder / "c4d_170316_062107_ooi_z_ls9-psfex.fits", ccdname="N2")
    image = fits.getdata(folder / "c4d_170316_062107_ooi_z_ls9.N2.fits").astype(float)
    weight = fits.getdata(folder / "c4d_170316_062107_oow_z_ls9.N2.fits").astype(float)
    x, y, r = 78, 20, 10
    near = np.s_[y - r : y + r + 1, x - r : x + r + 1]
    kernel = psf.compute_kernel_image(x, y)

    def chi2(kernel):
        star = KernelPsf(kernel).compute_image(-0.01, 0.27)
        middle = star.shape[0] // 2
        star = star[middle - r : middle + r + 1, middle - r : middle + r + 1]
        design = np.stack([star.ravel(), np.ones(star.size)], axis=1)
        error = np.sqrt(weight[near].ravel())
        fit = np.linalg.lstsq(design * error[:, np.newaxis], image[near].ravel() * error)
        return fit[1].item() / star.size

    assert chi2(kernel) < 1
    for mirrored in (kernel[::-1], kernel[:, ::-1], kernel[::-1, ::-1], kernel.T):
        assert chi2(mirrored) > 3


# Our own HDUs


def through_file(psf, path):
    hdus = [fits.PrimaryHDU(), fits.ImageHDU(np.ones((4, 4)), name="IMAGE"), *psf_to_hdus(psf)]
    fits.HDUList(hdus).writeto(path)
    with fits.open(path) as opened:
        return psf_from_hdus(opened)


def component(index, psf, **kwargs):
    return PsfComponent(index, Box(10 * index - 5, 3, 12, 7), psf, **kwargs)


AWKWARD = 0.0012345678901234567
INNER = CellPsf([component(3, GaussianPsf(1.5)), component(4, MODEL)])
STORED = {
    "gaussian": GaussianPsf(0.1 + 0.2, size=7),
    "double": DoubleGaussianPsf(1.0 + AWKWARD, 3.0, AWKWARD),
    "kernel": KernelPsf(RNG.uniform(0, 1, (5, 7))),
    "one pixel": KernelPsf([[3.0]]),
    "psfex": MODEL,
    "psfex, constant": PsfexPsf(PLANES[:1, :1, :1], 0, average_position=(1 / 3, AWKWARD)),
    "one psf": CellPsf([component(i, GaussianPsf(2.0), weight=i + AWKWARD) for i in range(20)]),
    "mixed": CellPsf(
        [
            component(2, KernelPsf(np.ones((3, 3)))),
            component(0, MODEL, weight=1 / 3),
            component(1, DoubleGaussianPsf(1.0, 2.0, 0.1)),
            component(5, GaussianPsf(2.0)),
            component(9, KernelPsf(np.ones((3, 3)))),
        ]
    ),
    "nested": CellPsf([component(0, INNER), component(1, GaussianPsf(1.5)), component(2, INNER)]),
}


@pytest.mark.slow
@pytest.mark.parametrize("psf", STORED.values(), ids=STORED.keys())
def test_round_trip_is_exact(psf, tmp_path):
    back = through_file(psf, tmp_path / "a.fits")
    assert back == psf
    np.testing.assert_array_equal(back.compute_image(), psf.compute_image())


@pytest.mark.parametrize("psf", STORED.values(), ids=STORED.keys())
def test_names_start_with_psf_and_end_in_psf(psf):
    names = [hdu.name for hdu in psf_to_hdus(psf)]
    assert names == [*(f"PSF{n}" for n in range(1, len(names))), "PSF"]
    assert psf_from_hdus(psf_to_hdus(psf)) == psf


def test_equal_psfs_are_stored_once():
    assert len(psf_to_hdus(STORED["one psf"])) == 2
    assert len(psf_to_hdus(STORED["mixed"])) == 5
    assert len(psf_to_hdus(STORED["nested"])) == 4


def test_models_of_one_class_and_shape_share_a_table():
    sizes = [5] * 40 + [7] * 10
    psf = CellPsf(component(i, KernelPsf(RNG.uniform(0, 1, (n, n)))) for i, n in enumerate(sizes))
    small, large, cells = psf_to_hdus(psf)
    assert small.data["array"].shape == (40, 5, 5)
    assert large.data["array"].shape == (10, 7, 7)
    assert cells.data["psf"].tolist() == [1] * 40 + [2] * 10
    assert cells.data["row"].tolist() == [*range(40), *range(10)]
    assert psf_from_hdus([small, large, cells]) == psf


def test_stored_form_is_plain(tmp_path):
    path = tmp_path / "a.fits"
    through_file(STORED["mixed"], path)
    with fits.open(path) as hdus:
        assert hdus["PSF"].header["PSFMODEL"] == "CellPsf"
        table = hdus["PSF"].data
        assert table.names == ["index", "x0", "y0", "width", "height", "weight", "psf", "row"]
        assert table["x0"].tolist() == [15, -5, 5, 45, 85]
        assert table["psf"].tolist() == [1, 2, 3, 4, 1]
        assert table["row"].tolist() == [0, 0, 0, 0, 0]
        np.testing.assert_array_equal(hdus["PSF1"].data["array"], np.ones((1, 3, 3)))
        assert hdus["PSF4"].data["sigma"].tolist() == [2.0]


def test_nothing_stored():
    foreign = fits.ImageHDU(np.ones((3, 3)), name="PSF")
    assert psf_from_hdus(fits.HDUList([fits.PrimaryHDU(), foreign])) is None


def test_damaged_storage():
    hdus = psf_to_hdus(STORED["mixed"])
    with pytest.raises(ValueError, match=r"HDU PSF2 is missing; there are PSF, PSF1, PSF3, PSF4"):
        psf_from_hdus([hdu for hdu in hdus if hdu.name != "PSF2"])
    with pytest.raises(ValueError, match=r"HDU PSF needs HDU PSF4, which is missing"):
        psf_from_hdus([hdu for hdu in hdus if hdu.name != "PSF4"])
    hdus[0].header["PSFMODEL"] = "MoffatPsf"
    with pytest.raises(ValueError, match=r"HDU PSF1 holds a MoffatPsf, but the known models are"):
        psf_from_hdus(hdus)


def test_unknown_model_cannot_be_stored():
    @dataclass(frozen=True, eq=False)
    class Tophat(Psf):
        def draw(self, x, y, dx, dy):
            return np.ones((3, 3))

    for psf in (Tophat(), CellPsf([component(0, Tophat())])):
        with pytest.raises(TypeError, match="cannot store a Tophat; a KernelPsf of its image"):
            psf_to_hdus(psf)
