"""Writing exposures, and reading them back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS, DistortionLookupTable, Sip
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from mapreduce import (
    Box,
    CellPsf,
    Exposure,
    GaussianPsf,
    Psf,
    PsfComponent,
    read_exposure,
    write_exposure,
)
from mapreduce.io.header import as_header
from tests.support import assert_read_back, make_full, make_wcs


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_round_trip(tmp_path, compression):
    exposure = make_full()
    write_exposure(exposure, tmp_path / "a.fits", compression=compression)
    found = read_exposure(tmp_path / "a.fits")
    assert_read_back(found, exposure)
    assert dict(found.meta) == {k.upper() if len(k) < 9 else k: v for k, v in exposure.meta.items()}
    part = found.cutout(Box(4010, -290, 20, 30))
    np.testing.assert_array_equal(part.image, exposure.image[10:40, 10:30])


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8"])
@pytest.mark.parametrize("compression", [None, "gzip", "rice"])
def test_every_integer_dtype(tmp_path, dtype, compression):
    image = (np.arange(600).reshape(20, 30) % 120).astype(dtype)
    exposure = make_full(image=image, variance=None, mask=None)
    write_exposure(exposure, tmp_path / "a.fits", compression=compression, tile=16)
    assert_read_back(read_exposure(tmp_path / "a.fits"), exposure)


def test_double_precision_everywhere(tmp_path):
    values = np.random.default_rng(0).normal(size=(9, 9))
    exposure = Exposure(values, values**2)
    write_exposure(exposure, tmp_path / "a.fits")
    assert_read_back(read_exposure(tmp_path / "a.fits"), exposure)


@pytest.mark.slow
def test_rice(tmp_path):
    image = np.random.default_rng(0).normal(1000, 16, (300, 300)).astype("f4")
    image[:9] = 0
    mask = (image % 7).astype("i4")
    image[20, 20], image[30, 30] = np.nan, np.inf
    exposure = make_full(image=image, variance=image + 1, mask=mask)
    write_exposure(exposure, tmp_path / "a.fits", compression="rice")
    found = read_exposure(tmp_path / "a.fits").compute()
    finite = np.isfinite(image)
    difference = found.image[finite] - image[finite]
    assert 0.1 < abs(difference).max() < 1  # a step is 1/16 of the noise
    np.testing.assert_array_equal(found.image[~finite], image[~finite])
    np.testing.assert_array_equal(found.image[:9], 0)
    np.testing.assert_array_equal(found.mask, exposure.mask)
    with fits.open(tmp_path / "a.fits", disable_image_compression=True) as hdus:
        assert hdus["IMAGE"].header["ZQUANTIZ"] == "SUBTRACTIVE_DITHER_2"
        assert hdus["IMAGE"].header["ZDITHER0"] > 0
    write_exposure(exposure, tmp_path / "b.fits", compression="rice")
    np.testing.assert_array_equal(read_exposure(tmp_path / "b.fits").image, found.image)


@pytest.mark.parametrize("suffix", [".fits", ".fits.fz"])
def test_what_lsst_readers_look_for(tmp_path, suffix):
    exposure = make_full(meta=fits.Header([("BUNIT", "nJy", "unit of pixels")]))
    path = tmp_path / f"a{suffix}"
    write_exposure(exposure, path)
    with fits.open(path) as hdus:
        hdus.verify("exception")
        assert hdus[0].data is None
        assert [hdu.name for hdu in hdus[1:4]] == ["IMAGE", "MASK", "VARIANCE"]
        assert [hdu.header["EXTTYPE"] for hdu in hdus[1:4]] == ["IMAGE", "MASK", "VARIANCE"]
        assert [hdu.data.dtype.name for hdu in hdus[1:4]] == ["float32", "int32", "float32"]
        if suffix == ".fits.fz":
            assert hdus[1].tile_shape == (70, 60)
        for hdu in hdus[1:4]:
            header = hdu.header
            assert (header["LTV1"], header["LTV2"]) == (-4000, 300)
            assert (header["CRPIX1A"], header["CRPIX2A"]) == (1, 1)
            assert (header["CRVAL1A"], header["CRVAL2A"]) == (4000, -300)
            assert (header["CTYPE1A"], header["CUNIT1A"]) == ("LINEAR", "pixel")
            assert header["INHERIT"] is True
            np.testing.assert_allclose(
                WCS(header).all_pix2world([[2, 3]], 0),
                exposure.wcs.all_pix2world([[4002, -297]], 0),
                rtol=0,
                atol=1e-12,
            )
        mask = hdus["MASK"].header
        assert (mask["MP_SAT"], mask["MP_DETECTED_NEGATIVE"]) == (0, 30)
        names = {mask[f"MSKN000{i}"]: mask[f"MSKM000{i}"] for i in range(4)}
        assert names == {name: 1 << bit for name, bit in exposure.mask_planes.items()}
        assert (hdus["IMAGE"].header["BUNIT"], hdus["VARIANCE"].header["BUNIT"]) == (
            "nJy",
            "nJy2",
        )
        assert hdus["IMAGE"].header.comments["BUNIT"] == "unit of pixels"


def test_planes_that_are_missing_are_not_written(tmp_path):
    exposure = Exposure(np.ones((3, 4)), np.ones((3, 4)))
    write_exposure(exposure, tmp_path / "a.fits")
    with fits.open(tmp_path / "a.fits") as hdus:
        assert [hdu.name for hdu in hdus] == ["PRIMARY", "IMAGE", "VARIANCE"]
    assert_read_back(read_exposure(tmp_path / "a.fits"), exposure)


def test_tiles(tmp_path):
    exposure = Exposure(np.ones((300, 400)))
    for options, tiles in (({}, (256, 256)), ({"tile": 100}, (100, 100))):
        write_exposure(exposure, tmp_path / "a.fits.fz", overwrite=True, **options)
        with fits.open(tmp_path / "a.fits.fz") as hdus:
            assert hdus[1].compression_type == "GZIP_2"
            assert hdus[1].tile_shape == tiles


def test_the_suffix_says_whether_to_compress(tmp_path):
    compressions = {
        ("a.fits", "auto"): None,
        ("a.fit", "auto"): None,
        ("a.fits.fz", "auto"): "GZIP_2",
        ("a.FZ", "auto"): "GZIP_2",
        ("a.fits.fz", None): None,
        ("a.fits", "gzip"): "GZIP_2",
        ("a.fits", "rice"): "RICE_1",
    }
    exposure = Exposure(np.ones((30, 40), "f4"))
    for (name, asked), found in compressions.items():
        write_exposure(exposure, tmp_path / name, overwrite=True, compression=asked)
        with fits.open(tmp_path / name) as hdus:
            assert getattr(hdus[1], "compression_type", None) == found
        assert_read_back(read_exposure(tmp_path / name), exposure)


def test_an_uncompressed_file_is_what_astropy_would_write(tmp_path):
    exposure = make_full(image=np.arange(600, dtype="u2").reshape(20, 30) * 100, variance=None,
                         mask=np.arange(600).reshape(20, 30))  # fmt: skip
    write_exposure(exposure, tmp_path / "a.fits")
    with fits.open(tmp_path / "a.fits") as hdus:
        for hdu in hdus:
            assert hdu.data is None or hdu.data.size  # read, to be written anew
        hdus.writeto(tmp_path / "b.fits")
    assert (tmp_path / "a.fits").read_bytes() == (tmp_path / "b.fits").read_bytes()


def test_header_of_another_file(tmp_path):
    meta = fits.Header({"NAXIS": 2, "CRPIX1": 5.0, "CTYPE1": "RA---TAN", "LTV1": 7, "CCD": 4})
    meta.update({"EXTNAME": "N2", "MP_BAD": 5, "AR_HDU": 5})
    meta["HISTORY"] = "one"
    meta["HISTORY"] = "two"
    write_exposure(Exposure(np.ones((3, 4)), meta=meta), tmp_path / "a.fits")
    found = read_exposure(tmp_path / "a.fits")
    assert set(found.meta) == {"CRPIX1", "CTYPE1", "LTV1", "CCD", "HISTORY"}
    assert list(found.meta["HISTORY"]) == ["one", "two"]
    assert found.wcs is None
    assert found.origin == (0, 0)


@pytest.mark.parametrize("value", [[1, 2], np.nan, "\N{GREEK SMALL LETTER ALPHA}", {"a": 1}])
def test_header_cards_that_fits_cannot_hold(tmp_path, value):
    exposure = Exposure(np.ones((3, 4)), meta={"FINE": 1, "WORSE": value})
    with pytest.raises(ValueError, match="cannot hold the header card 'WORSE'"):
        write_exposure(exposure, tmp_path / "a.fits")
    assert list(tmp_path.iterdir()) == []


KEYWORDS = st.text("ABCXYZ0189_- ", min_size=1, max_size=75).map(
    lambda text: " ".join(text.split()) or "A"
)
VALUES = (
    st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=200)
)


def written(header):
    """Return the card of a header as a file has it, None where it is refused."""
    try:
        return fits.Header.fromstring(as_header(header).tostring()).cards[0]
    except ValueError:
        return None


@settings(max_examples=200, deadline=None)
@given(KEYWORDS, VALUES, st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=99))
@example("LSST " + "A" * 42, 1.2345678901234567e100, "comment")
@example("A" * 60, 1.5 - 2.25j, "")
@example("A" * 66, 123, "comment")
def test_a_card_comes_back_or_is_refused(keyword, value, comment):
    """Nothing but the comment is cut, be the keyword as long as it may."""
    card = fits.Card(keyword if len(keyword) < 9 and " " not in keyword else f"HIERARCH {keyword}")
    card.value, card.comment = value, comment
    assume(card.field_specifier is None)  # texts like "A: 1", in which astropy sees two parts
    assume("'/" not in str(value).replace(" ", ""))  # where astropy ends a text
    assume(value != "" or "'" not in comment)  # whose quote astropy takes for the end of the text
    header = fits.Header()
    header.append(card, end=True)
    number = not isinstance(value, str)
    found = written(header)
    if found is None:
        room = 80 - len(f"HIERARCH {keyword}=")
        assert room < (len(repr(value)) if number else 10)
        return
    assert found.keyword == keyword
    if number:
        assert type(found.value) is type(value)
        assert found.value == value
    else:
        assert found.value.rstrip() == value.rstrip()
    assert "".join(comment.split()).startswith("".join(found.comment.split()))


@pytest.mark.parametrize("name", ["a.fits", "a.fits.fz", "a.zarr"])
def test_cards_of_all_lengths_in_files(tmp_path, name):
    values = (True, -12345678901234567, -1.2345678901234567e-100, "it's " * 30 + "over", None)
    meta = fits.Header()
    for length in (1, 7, *range(9, 45, 4)):
        for i, value in enumerate(values):
            meta.append((f"HIERARCH {'A' * length} {i}", value, "a comment of many words" * 3))
    write_exposure(Exposure(np.ones((3, 4)), meta=meta), tmp_path / name)
    found = read_exposure(tmp_path / name).meta
    assert {key: found[key] for key in found} == {key: meta[key] for key in meta}
    with pytest.raises(ValueError, match="the header card 'AAA.*no room for the value 12"):
        Exposure(np.ones((3, 4)), meta={"A" * 68: 1234}).write(tmp_path / f"b{name}")


def test_the_name_of_a_mask_plane_may_be_too_long_for_fits(tmp_path):
    exposure = Exposure(np.ones((3, 4)), mask=np.ones((3, 4), int), mask_planes={"M" * 70: 0})
    with pytest.raises(ValueError, match="cannot hold the header card 'MP_MMM"):
        exposure.write(tmp_path / "a.fits")
    exposure.write(tmp_path / "a.zarr")
    assert read_exposure(tmp_path / "a.zarr").mask_planes == exposure.mask_planes


@pytest.mark.parametrize(
    ("unit", "square"),
    [
        ("nJy", "nJy2"),
        ("MJy/sr", "MJy2 sr-2"),
        ("electron/s", "electron2 / s2"),
        ("10**(-20)*erg/s/cm**2/Angstrom", "10**-40 erg2 Angstrom-2 s-2 cm-4"),
        ("2.5 uJy", "6.25 uJy2"),
        ("mag(AB)", "(mag(AB))**2"),
        ("ADU", "ADU**2"),
        ("counts/s", "(counts/s)**2"),
        ("  ", None),
    ],
)
def test_the_unit_of_the_variance(tmp_path, unit, square):
    ones = np.ones((3, 4))
    write_exposure(Exposure(ones, ones, meta={"BUNIT": unit}), tmp_path / "a.fits")
    assert fits.getheader(tmp_path / "a.fits", "VARIANCE").get("BUNIT") == square


def test_psf_of_cells(tmp_path):
    boxes = Box(0, 0, 5, 10), Box(5, 0, 5, 10)
    psf = CellPsf(PsfComponent(i, box, GaussianPsf(i + 1.0)) for i, box in enumerate(boxes))
    exposure = Exposure(np.ones((10, 10)), psf=psf)
    write_exposure(exposure, tmp_path / "a.fits")
    assert_read_back(read_exposure(tmp_path / "a.fits"), exposure)


def test_psf_that_cannot_be_stored(tmp_path):
    @dataclass(frozen=True)
    class MyPsf(Psf):
        def draw(self, x, y, dx, dy):
            return np.ones((3, 3))

    with pytest.raises(TypeError, match="cannot store a MyPsf"):
        write_exposure(Exposure(np.ones((3, 4)), psf=MyPsf()), tmp_path / "a.fits")
    assert list(tmp_path.iterdir()) == []


def test_wcs_with_sip_terms(tmp_path):
    wcs = make_wcs("TAN-SIP")
    a, b = np.zeros((2, 4, 4))
    a[2, 0], b[1, 2] = 1 / 3e7, -1 / 7e9
    wcs.sip = Sip(a, b, None, None, wcs.wcs.crpix)
    exposure = make_full(wcs=wcs)
    write_exposure(exposure, tmp_path / "a.fits")
    found = read_exposure(tmp_path / "a.fits").wcs
    points = [[4000, -300], [4059, -231]]
    np.testing.assert_allclose(
        found.all_pix2world(points, 0), wcs.all_pix2world(points, 0), rtol=0, atol=1e-12
    )
    np.testing.assert_array_equal(found.sip.a, a)
    np.testing.assert_array_equal(found.sip.b, b)


@pytest.mark.parametrize("origin", [(0, 0), (5, 3)])
def test_wcs_with_lookup_tables(tmp_path, origin):
    wcs = make_wcs()
    table = np.linspace(-1, 1, 20, dtype="f4").reshape(4, 5)
    wcs.cpdis1 = DistortionLookupTable(table, (1, 1), (1, 1), (8, 12))
    wcs.cpdis2 = DistortionLookupTable(table * 2, (1, 1), (1, 1), (8, 12))
    write_exposure(make_full(wcs=wcs, origin=origin), tmp_path / "a.fits")
    found = read_exposure(tmp_path / "a.fits").wcs
    np.testing.assert_allclose(
        found.all_pix2world([[11, 22]], 0), wcs.all_pix2world([[11, 22]], 0), rtol=0, atol=1e-12
    )


def test_wcs_with_pc_and_cdelt(tmp_path):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = "RA---ZPN", "DEC--ZPN"
    wcs.wcs.pc = [[0.6, -0.8], [0.8, 0.6]]
    wcs.wcs.cdelt = -1 / 3e4, 1 / 3e4
    wcs.wcs.crval = 10, 20
    wcs.wcs.set_pv([(2, 1, 1 + 1 / 3), (2, 3, -1 / 7)])
    wcs.wcs.set()
    exposure = make_full(wcs=wcs)
    write_exposure(exposure, tmp_path / "a.fits")
    assert_read_back(read_exposure(tmp_path / "a.fits"), exposure)
    with fits.open(tmp_path / "a.fits") as hdus:
        assert "CD1_1" not in hdus[1].header


# Files


def test_lazy_exposures_are_computed_once(tmp_path):
    exposure = make_full()
    write_exposure(exposure.chunk(16), tmp_path / "a.fits")
    opened = read_exposure(tmp_path / "a.fits")
    write_exposure(opened, tmp_path / "b.fits")
    write_exposure(opened, tmp_path / "a.fits", overwrite=True)  # the file that it is read from
    for name in ("a.fits", "b.fits"):
        assert_read_back(read_exposure(tmp_path / name), exposure)


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_arrays_are_left_alone(tmp_path, compression):
    exposure = make_full()
    image = exposure.image.copy()
    for plane in (exposure.variance, exposure.mask):
        plane.flags.writeable = False
    write_exposure(exposure, tmp_path / "a.fits", compression=compression)
    assert exposure.image.tobytes() == image.tobytes()
    assert exposure.image.flags.writeable


def test_nothing_is_overwritten_unasked(tmp_path):
    path = tmp_path / "a.fits"
    path.write_text("mine")
    with pytest.raises(FileExistsError, match=r"a\.fits exists; overwrite=True .* replaces it"):
        write_exposure(make_full(), path)
    assert path.read_text() == "mine"
    write_exposure(make_full(), path, overwrite=True)
    assert_read_back(read_exposure(path), make_full())
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_nothing_is_left_half_written(tmp_path, monkeypatch, error):
    path = tmp_path / "a.fits"
    path.write_text("mine")

    def half(self, name, **_):
        name.write_bytes(b"SIMPLE")
        raise error

    monkeypatch.setattr(fits.HDUList, "writeto", half)
    with pytest.raises(error):
        write_exposure(make_full(), path, overwrite=True, compression="gzip")
    assert path.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [path]


def test_bad_arguments(tmp_path):
    exposure = make_full()
    with pytest.raises(FileNotFoundError, match="no folder"):
        write_exposure(exposure, tmp_path / "none" / "a.fits")
    with pytest.raises(ValueError, match=r"suffix of .*a\.tiff is none of \.zarr, \.fits"):
        write_exposure(exposure, tmp_path / "a.tiff")
    with pytest.raises(
        ValueError, match="cannot write the format 'decam'; choose among zarr, fits"
    ):
        write_exposure(exposure, tmp_path / "a.fits", format="decam")
    with pytest.raises(TypeError, match="no option 'level' .* there are overwrite, compression"):
        write_exposure(exposure, tmp_path / "a.fits", level=3)
    with pytest.raises(ValueError, match="compression is .*got 'zip'"):
        write_exposure(exposure, tmp_path / "a.fits", compression="zip")
    with pytest.raises(ValueError, match="at least one pixel wide, got 0"):
        write_exposure(exposure, tmp_path / "a.fits", tile=0)
    with pytest.raises(TypeError, match="writes an Exposure, got ndarray"):
        write_exposure(exposure.image, tmp_path / "a.fits")
    with pytest.raises(ValueError, match="image is float16; FITS holds"):
        write_exposure(Exposure(np.ones((3, 3), "f2")), tmp_path / "a.fits")
    assert list(tmp_path.iterdir()) == []


# Real files


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    [
        "decam_cp/single/c4d_170316_062107_ooi_z_ls9.N2.fits",
        "decam_cp/pairs/c4d_150110_053718_ooi_z_ls9.S4.fits",
        "decam_cp/pairs/c4d_181215_051332_ooi_r_ls9.S9.fits",
        "mosaic3_90prime/ksb_160203_115029_ooi_r_v1-ccd2.fits",
        "nircam_pair/jw01324001001-01324-o001_t001_nircam_clear-f200w_i2d_stamp.fits",
        "decam_stack/DEC-OBS04a.mini.fits",
        "hsc/HSC-0908120-056-small.fits",
        "hsc/exposure-version-2.fits",
        "megacam_calexp/calexp-849375-12.fits.fz",
    ],
)
def test_real_exposures(shared, tmp_path, path):
    exposure = read_exposure(shared / "data/exposures" / path).compute()
    if exposure.image.size > 10**6:
        exposure = exposure.cutout(Box(500, 600, 700, 300))
    write_exposure(exposure, tmp_path / "a.fits")
    found = read_exposure(tmp_path / "a.fits")
    assert_read_back(found, exposure)
    assert [str(card) for card in found.meta.cards] == [str(card) for card in exposure.meta.cards]
