"""Reading FITS files of any origin, and the planes that are read by block."""

from __future__ import annotations

import bz2
import gzip
import io
import os
import pickle
from concurrent.futures import ThreadPoolExecutor

import dask
import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS, DistortionLookupTable
from dask.base import tokenize

from mapreduce import Box, MaskPlanes, read_exposure
from mapreduce.exposure.plane import Derived
from mapreduce.io import fits_plane
from mapreduce.io.fits_plane import FitsPlane
from mapreduce.io.hdu import read_table, scan

IMAGE = np.arange(40 * 30, dtype="f4").reshape(40, 30)
FLAGS = np.zeros((40, 30), np.int16)
FLAGS[3, 4] = 5
BLOCK = np.s_[7:19, 4:25]


def write(path, *planes, primary=None):
    """Write (name, array) pairs, or HDUs, as the extensions of a file."""
    hdus = [p if not isinstance(p, tuple) else fits.ImageHDU(p[1], name=p[0]) for p in planes]
    fits.HDUList([fits.PrimaryHDU(primary), *hdus]).writeto(path)
    return path


def tan_wcs():
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = "RA---TAN", "DEC--TAN"
    wcs.wcs.crval = 30, 40
    wcs.wcs.crpix = 5, 6
    wcs.wcs.cd = np.array([[-1, 0.1], [0.1, 1]]) * 1e-4
    wcs.wcs.set()
    return wcs


# One HDU: planes, unread


@pytest.mark.slow
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dtype", ["f4", "f8", "u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8"])
def test_a_block_is_what_astropy_reads(tmp_path, dtype, compressed):
    array = (IMAGE % 100).astype(dtype)
    if compressed:
        hdu = fits.CompImageHDU(
            array, compression_type="GZIP_2", tile_shape=(8, 16), quantize_level=0
        )
    else:
        hdu = fits.ImageHDU(array)
    plane = FitsPlane(scan(write(tmp_path / "a.fits", hdu))[1])
    block = plane[BLOCK]
    assert plane.shape == (40, 30)
    assert plane.dtype == block.dtype == np.dtype(dtype)
    assert block.flags.owndata
    assert block.flags.writeable
    np.testing.assert_array_equal(block, array[BLOCK])


@pytest.mark.slow
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(
    ("dtype", "cards"),
    [
        ("i2", {"BSCALE": 0.5, "BZERO": 10.0}),
        ("i4", {"BSCALE": 2.0}),
        ("i2", {"BLANK": 41}),
        ("u1", {"BSCALE": 3.0, "BLANK": 41}),
    ],
)
def test_bscale_bzero_and_blank_are_applied(tmp_path, dtype, cards, compressed):
    array = (IMAGE % 100).astype(dtype)
    hdu = fits.CompImageHDU(array, tile_shape=(8, 16)) if compressed else fits.ImageHDU(array)
    path = write(tmp_path / "a.fits", hdu)
    raw = {"disable_image_compression": True, "do_not_scale_image_data": True}
    with fits.open(path, mode="update", **raw) as hdus:
        hdus[1].header.update(cards)
    with fits.open(tmp_path / "a.fits") as hdus:
        expected = np.array(hdus[1].data[BLOCK])
    plane = FitsPlane(scan(tmp_path / "a.fits")[1])
    assert plane.dtype == plane[BLOCK].dtype == expected.dtype.newbyteorder("=")
    assert plane.dtype.kind == "f"
    np.testing.assert_array_equal(plane[BLOCK], expected)


def test_blocks_of_any_shape(tmp_path):
    path = write(tmp_path / "a.fits", ("A", IMAGE))
    plane = FitsPlane(scan(path)[1])
    for block in (np.s_[:, :], np.s_[39:, 29:], np.s_[5:5, :], np.s_[2:30:3, 1:20:7]):
        np.testing.assert_array_equal(plane[block], IMAGE[block])
    lazy = read_exposure(path).image
    np.testing.assert_array_equal(lazy[5].compute(), IMAGE[5])
    np.testing.assert_array_equal(lazy[::-2, 3].compute(), IMAGE[::-2, 3])


def test_the_last_hdu_of_many(tmp_path):
    planes = [(f"N{i}", IMAGE + i) for i in range(5)]
    packed = [fits.CompImageHDU(a, name=n, tile_shape=(8, 8)) for n, a in planes]
    write(tmp_path / "a.fits", *planes)
    write(tmp_path / "a.fits.fz", *packed)
    assert [hdu.name for hdu in scan(tmp_path / "a.fits.fz")] == ["", "N0", "N1", "N2", "N3", "N4"]
    for name in ("a.fits", "a.fits.fz"):
        hdu = scan(tmp_path / name)[5]
        np.testing.assert_array_equal(FitsPlane(hdu)[BLOCK], fits.getdata(hdu.path, 5)[BLOCK])
        assert hdu.header()["EXTNAME"] == "N4"


def test_only_the_tiles_of_a_block_are_decompressed(tmp_path):
    hdu = fits.CompImageHDU(IMAGE, compression_type="GZIP_1", tile_shape=(8, 30), quantize_level=0)
    path = write(tmp_path / "a.fits", hdu)
    end = scan(path)[1].stop
    content = bytearray(path.read_bytes())
    content[end - 40 : end] = bytes(40)  # in the last tile
    path.write_bytes(content)
    plane = FitsPlane(scan(path)[1])
    np.testing.assert_array_equal(plane[0:32, :], IMAGE[0:32])
    with pytest.raises(OSError, match=r"a\.fits, HDU 1 cannot be read"):
        plane[30:40, :]


DITHERED = {"quantize_level": 16, "dither_seed": 7}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "how"),
    [
        ("i4", {"compression_type": "RICE_1"}),
        ("f4", {"compression_type": "RICE_1", "quantize_method": 1, **DITHERED}),
        ("f4", {"compression_type": "RICE_1", "quantize_method": 2, **DITHERED}),
        ("f4", {"compression_type": "GZIP_1", "quantize_method": 1, **DITHERED}),
        ("f4", {"compression_type": "GZIP_1", "quantize_level": 0}),
        ("f4", {"compression_type": "GZIP_2", "quantize_level": 0}),
        ("i4", {"compression_type": "HCOMPRESS_1"}),
        ("i2", {"compression_type": "PLIO_1"}),
    ],
)
def test_a_block_decompresses_its_own_tiles_and_reads_no_others(tmp_path, monkeypatch, dtype, how):
    image = np.random.default_rng(1).normal(100, 9, (160, 120)).astype(dtype)
    path = write(tmp_path / "a.fits", fits.CompImageHDU(image, tile_shape=(16, 12), **how))
    hdu = scan(path)[1]
    expected = fits.getdata(path)[20:50, 30:40]
    with fits.open(path, disable_image_compression=True) as hdus:
        table = hdus[1].data
        pixels = [table[name] for name in table.names if name.endswith("_DATA")]
        size = [sum(part.nbytes for part in row) for row in zip(*pixels, strict=True)]
    tiles = [size[10 * row + column] for row in (1, 2, 3) for column in (2, 3)]
    amounts = []

    class Measured(io.FileIO):
        def readinto(self, buffer):
            amounts.append(super().readinto(buffer))
            return amounts[-1]

    monkeypatch.setattr(fits_plane, "open_unchanged", lambda hdu: Measured(hdu.path))
    block = FitsPlane(hdu)[20:50, 30:40]
    np.testing.assert_array_equal(block, expected)
    rows = hdu.facts["NAXIS1"] * hdu.facts["NAXIS2"]
    beside = 2880 + hdu.data - hdu.start + rows  # the header, and where each tile is
    assert 0 < sum(amounts) <= beside + sum(tiles) < hdu.stop - hdu.start


def test_the_header_has_nothing_of_the_compression(tmp_path):
    header = fits.Header({"EXPTIME": 30.0, "ZPMAG": 25.0, "TELESCOP": "T2", "BUNIT": "adu"})
    for dtype in ("f4", "u2"):
        hdu = fits.CompImageHDU(IMAGE.astype(dtype), header, name="SCI", quantize_level=16)
        path = write(tmp_path / f"{dtype}.fits", hdu)
        assert dict(read_exposure(path).meta) == dict(header)


def test_characters_that_fits_does_not_have(tmp_path):
    path = write(tmp_path / "a.fits", ("SCI", IMAGE))
    with fits.open(path, mode="update") as hdus:
        hdus[1].header["OBSERVER"] = "Angstr0m"
    path.write_bytes(path.read_bytes().replace(b"Angstr0m", "Angstr\xf6m".encode("latin-1")))
    assert read_exposure(path).meta["OBSERVER"] == "Angstr?m"


@pytest.mark.parametrize(
    ("card", "value"),
    [
        ("NAXIS1  =                 2048 / columns", 2048),
        ("NAXIS1  = -7", -7),
        ("ZIMAGE  =                    T / it is", True),
        ("ZIMAGE  =                    F", False),
        ("EXTNAME = 'SCI     '           / a / b", "SCI"),
        ("EXTNAME = 'O''Neil '", "O'Neil"),
        ("EXTNAME = ''", ""),
        ("BZERO   =              32768.0 / offset", 32768.0),
        ("BSCALE  =                1D-02", 0.01),
        ("EXTVER  =", None),
    ],
)
def test_values_of_cards_are_what_astropy_says(tmp_path, card, value):
    card = card.ljust(80)
    known = fits.Card.fromstring(card).value
    assert (None if isinstance(known, fits.card.Undefined) else known) == value
    cards = ["SIMPLE  = T", "BITPIX  = 8", "NAXIS   = 0", card, "END"]
    path = tmp_path / "a.fits"
    path.write_text("".join(line.ljust(80) for line in cards).ljust(2880))
    found = scan(path)[0].facts[card[:8].strip()]
    assert (None if isinstance(found, fits.card.Undefined) else found) == value
    assert value is None or type(found) is type(value)


@pytest.mark.slow
def test_tables_as_they_are_in_the_file(tmp_path):
    columns = [
        fits.Column("flag", "L", array=[True, False]),
        fits.Column("bits", "11X", array=np.zeros((2, 11), bool)),
        fits.Column("name", "5A", array=["a", "bcd"]),
        fits.Column("one", "K", array=[2**40, -1]),
        fits.Column("many", "3E", array=np.arange(6, dtype="f4").reshape(2, 3)),
        fits.Column("varying", "PD()", array=np.array([[1.0], [2.0, 3.0]], object)),
    ]
    path = write(tmp_path / "a.fits", fits.BinTableHDU.from_columns(columns))
    rows = read_table(scan(path)[1])
    assert rows["flag"].tolist() == [ord("T"), ord("F")]
    assert rows["bits"].shape == (2, 2)
    assert rows["name"].tolist() == [b"a", b"bcd"]
    assert rows["one"].tolist() == [2**40, -1]
    np.testing.assert_array_equal(rows["many"], [[0, 1, 2], [3, 4, 5]])
    assert rows["varying"][:, 0].tolist() == [1, 2]
    with fits.open(path, mode="update") as hdus:
        hdus[1].header["TFORM5"] = "2E"
    with pytest.raises(OSError, match=r"a\.fits, HDU 1: the columns take 32 bytes of rows of 36"):
        read_table(scan(path)[1])


@pytest.mark.parametrize("opener", [gzip.open, bz2.open])
def test_files_compressed_as_a_whole(tmp_path, opener):
    counts = IMAGE.astype("u2")
    plain = write(tmp_path / "a.fits", fits.CompImageHDU(FLAGS, name="DQ"), primary=counts)
    path = tmp_path / "b.fits.packed"
    with opener(path, "wb") as file:
        file.write(plain.read_bytes())
    exposure = read_exposure(path).cutout(Box(4, 3, 5, 2)).compute()
    assert exposure.image.dtype == np.uint16
    np.testing.assert_array_equal(exposure.image, counts[3:5, 4:9])
    np.testing.assert_array_equal(exposure.mask, FLAGS[3:5, 4:9])
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(OSError, match=r"b\.fits\.packed cannot be decompressed"):
        scan(path)


@pytest.mark.slow
def test_threads_share_a_plane(tmp_path):
    hdu = fits.CompImageHDU(IMAGE, tile_shape=(4, 4), quantize_level=0, compression_type="GZIP_2")
    plane = FitsPlane(scan(write(tmp_path / "a.fits", hdu))[1])
    blocks = [np.s_[i : i + 9, j : j + 7] for i in range(0, 31, 3) for j in range(0, 23, 3)]
    with ThreadPoolExecutor(8) as pool:
        for block, values in zip(blocks, pool.map(plane.__getitem__, blocks), strict=True):
            np.testing.assert_array_equal(values, IMAGE[block])


def test_processes_read_for_themselves(tmp_path, client):
    path = write(tmp_path / "a.fits", ("SCI", IMAGE), ("ERR", IMAGE + 1), ("DQ", FLAGS))
    exposure = read_exposure(path, chunks=16)
    image, variance, mask = client.compute([exposure.image, exposure.variance, exposure.mask])
    np.testing.assert_array_equal(image.result(), IMAGE)
    np.testing.assert_array_equal(variance.result(), (IMAGE + 1) ** 2)
    np.testing.assert_array_equal(mask.result(), FLAGS)


def test_a_handle_is_small_and_names_its_content(tmp_path):
    path = write(tmp_path / "a.fits", ("A", IMAGE), ("B", IMAGE))
    plane = FitsPlane(scan(path)[1])
    assert len(pickle.dumps(plane)) < 1000
    assert pickle.loads(pickle.dumps(plane)) == plane
    assert tokenize(FitsPlane(scan(path)[1])) == tokenize(plane)
    assert tokenize(FitsPlane(scan(path)[2])) != tokenize(plane)
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert tokenize(FitsPlane(scan(path)[1])) != tokenize(plane)


def test_opening_reads_no_pixels(tmp_path, monkeypatch):
    flags = fits.ImageHDU(FLAGS, fits.Header({"MP_BAD": 0}), "DQ")
    path = write(tmp_path / "a.fits", ("SCI", IMAGE), ("ERR", IMAGE), flags)

    def fail(*_):
        raise AssertionError("pixels were read")

    with monkeypatch.context() as patch:
        patch.setattr(FitsPlane, "__getitem__", fail)
        exposure = read_exposure(path)
        part = exposure.cutout(Box(1, 2, 3, 4)).chunk(2)
        repr(exposure)
    assert dask.is_dask_collection(exposure)
    np.testing.assert_array_equal(part.compute().image, IMAGE[2:6, 1:4])


def test_a_file_that_changes_or_vanishes(tmp_path):
    path = write(tmp_path / "a.fits", ("SCI", IMAGE))
    plane = FitsPlane(scan(path)[1])
    with open(path, "ab") as file:
        file.write(bytes(2880))
    with pytest.raises(OSError, match=r"a\.fits has changed since it was opened: it had \d+ bytes"):
        plane[:5, :5]
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"a\.fits has vanished"):
        plane[:5, :5]


def test_truncated_files(tmp_path):
    path = write(tmp_path / "a.fits", ("SCI", IMAGE), ("DQ", FLAGS))
    content = path.read_bytes()
    hdu = scan(path)[2]
    path.write_bytes(content[: hdu.stop - 10])
    with pytest.raises(OSError, match=rf"HDU 2 \(DQ\).*bytes {hdu.data} to {hdu.stop} .*has"):
        read_exposure(path)
    path.write_bytes(content[: hdu.stop])  # only the padding is missing
    assert len(scan(path)) == 3
    path.write_bytes(content[: hdu.start + 500])
    with pytest.raises(OSError, match=r"header of HDU 2 starts at byte \d+ and has no END before"):
        read_exposure(path)


def test_other_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file"):
        read_exposure(tmp_path / "none.fits")
    for content in (b"", b"PK not FITS at all"):
        (tmp_path / "a.fits").write_bytes(content)
        with pytest.raises(OSError, match=r"a\.fits is not a FITS file: it starts with"):
            read_exposure(tmp_path / "a.fits")


def test_junk_after_the_last_hdu_is_left_alone(tmp_path):
    path = write(tmp_path / "a.fits", ("SCI", IMAGE))
    with open(path, "ab") as file:
        file.write(b"junk" * 1000)
    np.testing.assert_array_equal(read_exposure(path).image, IMAGE)


def test_derived_planes_have_one_shape(tmp_path):
    path = write(tmp_path / "a.fits", ("A", IMAGE), ("B", IMAGE[:20]))
    planes = tuple(FitsPlane(hdu) for hdu in scan(path)[1:])
    with pytest.raises(ValueError, match="differ in shape"):
        Derived(np.add, planes, np.dtype("f4"))


# Which HDU is which plane


@pytest.mark.parametrize("name", ["VARIANCE", "var"])
def test_variances_are_taken_as_they_are(tmp_path, name):
    noise = IMAGE - 3
    exposure = read_exposure(write(tmp_path / "a.fits", ("sci", IMAGE), (name, noise))).compute()
    np.testing.assert_array_equal(exposure.image, IMAGE)
    np.testing.assert_array_equal(exposure.variance, noise)
    assert exposure.mask is None


@pytest.mark.parametrize("name", ["ERR", "error", "UNCERT", "SIGMA", "RMS"])
def test_errors_are_squared(tmp_path, name):
    error = np.array([[2, 0, -1, np.nan, np.inf]], "f4")
    path = write(tmp_path / "a.fits", ("IMAGE", error), (name, error))
    exposure = read_exposure(path).compute()
    np.testing.assert_array_equal(exposure.variance, [[4] + [np.inf] * 4])
    assert exposure.variance.dtype == np.float32
    bad = exposure.mask_planes.bitmask("BAD")
    np.testing.assert_array_equal(exposure.mask, [[0] + [bad] * 4])


@pytest.mark.parametrize("name", ["WHT", "WGT", "WEIGHT", "IVAR", "invvar"])
def test_weights_are_inverted_and_flagged_in_the_mask(tmp_path, name):
    weight = np.array([[4.0, 0.0, 0.5]])
    bits = np.array([[1, 2, 2]], np.int16)
    path = write(tmp_path / "a.fits", ("DATA", weight), (name, weight), ("MSK", bits))
    exposure = read_exposure(path, mask_planes={"BAD": 0, "SAT": 1}).compute()
    np.testing.assert_array_equal(exposure.variance, [[0.25, np.inf, 2]])
    assert dict(exposure.mask_planes) == {"BAD": 0, "SAT": 1}
    np.testing.assert_array_equal(exposure.mask, [[1, 2 | 1, 2]])


@pytest.mark.parametrize(
    ("utype", "variance"),
    [("StdDevUncertainty", 9), ("VarianceUncertainty", 3), ("InverseVariance", 1 / 3)],
)
def test_ccddata_files(tmp_path, utype, variance):
    path = write(
        tmp_path / "a.fits",
        ("MASK", np.array([[0, 1, 2]], np.uint8)),
        fits.ImageHDU(np.full((1, 3), 3.0), fits.Header({"UTYPE": utype}), "UNCERT"),
        primary=np.zeros((1, 3)),
    )
    exposure = read_exposure(path).compute()
    np.testing.assert_array_equal(exposure.variance, np.full((1, 3), variance))
    bad = exposure.mask_planes.bitmask("BAD")
    np.testing.assert_array_equal(exposure.mask, [[0, bad, bad]])


def test_an_uncertainty_of_unknown_kind(tmp_path):
    noise = fits.ImageHDU(IMAGE, fits.Header({"UTYPE": "UnknownUncertainty"}), "UNCERT")
    path = write(tmp_path / "a.fits", ("SCI", IMAGE), noise)
    with pytest.raises(ValueError, match="UnknownUncertainty"):
        read_exposure(path)


def test_the_only_image_needs_no_name(tmp_path):
    table = fits.BinTableHDU.from_columns([fits.Column("a", "D", array=[1.0])], name="SCI")
    path = write(tmp_path / "a.fits", table, ("WHATEVER", IMAGE))
    np.testing.assert_array_equal(read_exposure(path).image, IMAGE)
    path = write(tmp_path / "b.fits", primary=IMAGE)
    np.testing.assert_array_equal(read_exposure(path).image, IMAGE)


def test_ambiguous_files_list_their_hdus(tmp_path):
    path = write(tmp_path / "a.fits", ("N1", IMAGE), ("N2", IMAGE))
    with pytest.raises(ValueError, match=r"choose one with image=: 1 N1 \(40 x 30 float32\), 2 N2"):
        read_exposure(path)
    path = write(tmp_path / "b.fits", ("SCI", IMAGE), ("ERR", IMAGE), ("WHT", IMAGE))
    with pytest.raises(ValueError, match=r"could be the noise; choose with variance=.*ERR.*WHT"):
        read_exposure(path)
    assert read_exposure(path, variance=None).variance is None
    path = write(tmp_path / "c.fits", ("SCI", IMAGE), ("DQ", FLAGS), ("MASK", FLAGS))
    with pytest.raises(ValueError, match="could be the mask; choose with mask=: 2 DQ"):
        read_exposure(path)
    assert read_exposure(path, mask=None).mask is None
    path = write(tmp_path / "d.fits", ("SCI", np.zeros((2, 40, 30))))
    with pytest.raises(ValueError, match=r"no image in two dimensions; .*1 SCI \(2 x 40 x 30"):
        read_exposure(path)


def test_planes_by_name_number_and_path(tmp_path):
    path = write(tmp_path / "a.fits", ("N1", IMAGE), ("N2", IMAGE * 2), ("flat", IMAGE + 1))
    other = write(tmp_path / "b.fits", ("Q1", FLAGS), ("Q2", FLAGS + 1))
    single = write(tmp_path / "c.fits", primary=IMAGE + 1)
    exposure = read_exposure(path, image="n2", error=3, mask=(other, "Q2"), mask_planes={"X": 0})
    np.testing.assert_array_equal(exposure.image, IMAGE * 2)
    np.testing.assert_array_equal(exposure.variance, (IMAGE + 1) ** 2)
    np.testing.assert_array_equal(exposure.mask, FLAGS + 1)
    for choice in (single, str(single)):
        exposure = read_exposure(path, image=1, variance=choice)
        np.testing.assert_array_equal(exposure.variance, IMAGE + 1)


def test_choices_that_are_not_there(tmp_path):
    path = write(tmp_path / "a.fits", ("N", IMAGE), ("N", IMAGE))
    with pytest.raises(KeyError, match=r"no HDU M, nor is there a file.*0 - \(no data\), 1 N"):
        read_exposure(path, image="M")
    with pytest.raises(KeyError, match="no HDU 7; there are"):
        read_exposure(path, image=7)
    with pytest.raises(ValueError, match="several HDUs n; choose by number"):
        read_exposure(path, image="n")
    with pytest.raises(
        TypeError, match=r"chosen by name, number, \(name, EXTVER\), path or .*got 1\.5"
    ):
        read_exposure(path, image=1.5)
    with pytest.raises(ValueError, match="choose one of variance, error and weight"):
        read_exposure(path, image=1, error=2, weight=2)
    with pytest.raises(ValueError, match=r"HDU 0 holds no image|an array of shape \(\)"):
        read_exposure(path, image=0)
    with pytest.raises(FileNotFoundError):
        read_exposure(path, image=1, mask=(tmp_path / "none.fits", 1))
    with pytest.raises(ValueError, match="40 x 30 but variance is 20 x 30"):
        read_exposure(path, image=1, variance=write(tmp_path / "b.fits", primary=IMAGE[:20]))


# Masks


def test_masks_that_name_their_planes(tmp_path):
    hdu = fits.ImageHDU(FLAGS, fits.Header({"MP_BAD": 0, "HIERARCH MP_SOMETHING": 2}), "DQ")
    path = write(tmp_path / "a.fits", ("SCI", IMAGE), hdu)
    assert read_exposure(path).mask_planes == MaskPlanes({"BAD": 0, "SOMETHING": 2})
    planes = read_exposure(path, mask_planes={"A": 5}).mask_planes
    assert planes == MaskPlanes({"A": 5})


def test_masks_of_floats(tmp_path):
    path = write(tmp_path / "a.fits", ("SCI", IMAGE), ("DQ", FLAGS.astype("f4")))
    exposure = read_exposure(path).compute()
    np.testing.assert_array_equal(exposure.mask, FLAGS != 0)
    assert exposure.mask_planes == MaskPlanes.lsst()
    exposure = read_exposure(path, mask_planes={"A": 0, "B": 2}).compute()
    np.testing.assert_array_equal(exposure.mask, FLAGS)


# Headers and WCS


def test_meta_is_the_image_header_over_the_primary(tmp_path):
    path = tmp_path / "a.fits"
    header = tan_wcs().to_header()
    header.update({"OBJECT": "M1", "BUNIT": "adu", "LTV1": -3, "DETSEC": "[1:2,3:4]"})
    hdus = [fits.PrimaryHDU(header=fits.Header({"OBJECT": "M2", "EXPTIME": 30.0, "TELRA": 1.5}))]
    hdus[0].header["HISTORY"] = "made"
    hdus.append(fits.CompImageHDU(IMAGE, header, name="SCI"))
    fits.HDUList(hdus).writeto(path)
    meta = read_exposure(path).meta
    assert isinstance(meta, fits.Header)
    expected = {"OBJECT", "EXPTIME", "TELRA", "HISTORY", "BUNIT", "DETSEC", "MJDREF", "LTV1"}
    assert set(meta) == expected
    assert meta["OBJECT"] == "M1"
    with fits.open(path, mode="update") as hdus:
        hdus[1].header["INHERIT"] = False
    assert "EXPTIME" not in read_exposure(path).meta


def test_wcs_is_that_of_the_file(tmp_path):
    wcs = tan_wcs()
    path = write(tmp_path / "a.fits", fits.ImageHDU(IMAGE, wcs.to_header(), "SCI"))
    exposure = read_exposure(path)
    np.testing.assert_allclose(
        exposure.wcs.all_pix2world([0, 7.5], [0, 3], 0), wcs.all_pix2world([0, 7.5], [0, 3], 0)
    )
    assert exposure.wcs.pixel_shape == IMAGE.shape[::-1]


def test_old_spellings_of_a_wcs_do_not_warn(tmp_path):
    header = tan_wcs().to_header()
    header["RADECSYS"] = header.pop("RADESYS")
    header["DATE-OBS"] = "01/02/99"
    path = write(tmp_path / "a.fits", fits.ImageHDU(IMAGE, header, "SCI"))
    assert read_exposure(path).wcs.wcs.radesys == "ICRS"


def test_a_wcs_that_is_not_of_the_sky(tmp_path):
    assert read_exposure(write(tmp_path / "a.fits", ("SCI", IMAGE))).wcs is None
    wave = {"CTYPE1": "WAVE", "CUNIT1": "Angstrom", "CRVAL1": 5000.0, "CDELT1": 1.5, "CRPIX1": 1.0}
    header = fits.Header(wave | {"CTYPE2": "LINEAR", "CDELT2": 0.2, "CRPIX2": 10.0})
    path = write(tmp_path / "b.fits", fits.ImageHDU(IMAGE, header, "SCI"))
    exposure = read_exposure(path)
    exposure.cutout(Box(5, 6, 10, 10)).write(tmp_path / "c.fits")
    found = read_exposure(tmp_path / "c.fits").wcs
    pixels = [[5, 6], [14, 15]]
    expected = WCS(header).all_pix2world(pixels, 0)
    np.testing.assert_allclose(found.all_pix2world(pixels, 0), expected, rtol=1e-14)
    assert fits.getheader(tmp_path / "c.fits", "IMAGE")["CTYPE1"] == "WAVE"


def test_a_wcs_with_a_third_axis(tmp_path):
    header = WCS(tan_wcs().to_header()).to_header()
    header.update({"WCSAXES": 3, "CTYPE3": "FREQ", "CRVAL3": 1e9, "CDELT3": 1.0, "CRPIX3": 1.0})
    path = write(tmp_path / "a.fits", fits.ImageHDU(IMAGE, header, "SCI"))
    exposure = read_exposure(path)
    assert exposure.wcs.naxis == 2
    np.testing.assert_allclose(
        exposure.wcs.all_pix2world([[3, 4]], 0), tan_wcs().all_pix2world([[3, 4]], 0)
    )


def test_a_wcs_that_makes_no_sense(tmp_path):
    header = tan_wcs().to_header()
    header["CTYPE2"] = "RA---TAN"
    path = write(tmp_path / "a.fits", fits.ImageHDU(IMAGE, header, "SCI"))
    with pytest.warns(UserWarning, match=r"HDU 1 \(SCI\): the WCS cannot be used"):
        exposure = read_exposure(path)
    assert exposure.wcs is None
    assert exposure.meta["CTYPE2"] == "RA---TAN"
    assert read_exposure(path, wcs=None).wcs is None
    assert read_exposure(path, wcs=tan_wcs()).wcs is not None
    with pytest.raises(TypeError, match='wcs is "auto", None, or'):
        read_exposure(path, wcs="none")


def test_a_wcs_with_lookup_tables(tmp_path):
    wcs = tan_wcs()
    table = np.linspace(-1, 1, 20, dtype="f4").reshape(4, 5)
    wcs.cpdis1 = DistortionLookupTable(table, (1, 1), (1, 1), (8, 12))
    wcs.cpdis2 = DistortionLookupTable(table * 2, (1, 1), (1, 1), (8, 12))
    primary, *tables = wcs.to_fits()
    write(tmp_path / "a.fits", fits.ImageHDU(IMAGE, primary.header, "SCI"), *tables)
    found = read_exposure(tmp_path / "a.fits", image="SCI").wcs.all_pix2world([[11, 22]], 0)
    np.testing.assert_allclose(found, wcs.all_pix2world([[11, 22]], 0), rtol=0, atol=1e-12)
    assert abs(found - tan_wcs().all_pix2world([[11, 22]], 0)).max() > 1e-6


@pytest.mark.parametrize("dtype", ["u1", "i2", "i4", "f4"])
@pytest.mark.parametrize("how", ["RICE_1", "GZIP_1", "GZIP_2", "PLIO_1", "HCOMPRESS_1"])
def test_constant_images_take_few_bytes(tmp_path, how, dtype):
    if how == "PLIO_1" and dtype == "f4":
        pytest.skip("PLIO is for integers")
    values = np.zeros((512, 600), dtype)
    hdu = fits.CompImageHDU(values, compression_type=how, tile_shape=values.shape)
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(tmp_path / "a.fits")
    assert not read_exposure(tmp_path / "a.fits", image=1, mask=None).compute().image.any()


# What is what


def test_versions_choose_what_belongs_to_them(tmp_path):
    hdus = []
    for version in (1, 2):
        for name, values in (("SCI", IMAGE * version), ("ERR", IMAGE + version), ("DQ", FLAGS)):
            hdus.append(fits.ImageHDU(values, name=name, ver=version))
    path = write(tmp_path / "a.fits", *hdus)
    for choice in (("SCI", 2), ("sci", 2), 4, (path, 4), (path, ("SCI", 2))):
        exposure = read_exposure(path, image=choice)
        np.testing.assert_array_equal(exposure.image, IMAGE * 2)
        np.testing.assert_array_equal(exposure.variance, (IMAGE + 2) ** 2)
        assert exposure.mask is not None
    with pytest.raises(KeyError, match="0 HDUs SCI with EXTVER 3; there are 1, 2"):
        read_exposure(path, image=("SCI", 3))


@pytest.mark.parametrize("where", ["beside", "in the primary header"])
def test_the_weight_of_a_drizzled_image_is_asked_for(tmp_path, where):
    more = [("CTX", FLAGS)] if where == "beside" else []
    primary = fits.Header({"NDRIZIM": 4} if not more else {})
    path = write(tmp_path / "a.fits", ("SCI", IMAGE), ("WHT", IMAGE + 1), *more)
    with fits.open(path, mode="update") as hdus:
        hdus[0].header.update(primary)
    with pytest.raises(ValueError, match=r'\(WHT\) belongs to a drizzled image.*weight="WHT"'):
        read_exposure(path)
    assert read_exposure(path, variance=None).variance is None
    np.testing.assert_allclose(read_exposure(path, weight="WHT").variance, 1 / (IMAGE + 1))


@pytest.mark.parametrize(
    ("name", "unit", "factor"),
    [("ERR", "mJy", 1e-6), ("VAR", "mJy2", 1e-6), ("IVAR", "mJy-2", 1e-6), ("ERR", "Jy", 1)],
)
def test_the_noise_comes_in_the_unit_of_the_image(tmp_path, name, unit, factor):
    hdus = [fits.ImageHDU(IMAGE, fits.Header({"BUNIT": "Jy"}), "SCI")]
    hdus.append(fits.ImageHDU(IMAGE + 1, fits.Header({"BUNIT": unit}), name))
    expected = {"ERR": (IMAGE + 1) ** 2, "VAR": IMAGE + 1, "IVAR": 1 / (IMAGE + 1)}[name] * factor
    found = read_exposure(write(tmp_path / "a.fits", *hdus)).variance
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_noise_of_another_kind_of_unit_is_told(tmp_path):
    hdus = [fits.ImageHDU(IMAGE, fits.Header({"BUNIT": "Jy"}), "SCI")]
    hdus.append(fits.ImageHDU(IMAGE + 1, fits.Header({"BUNIT": "s"}), "ERR"))
    with pytest.warns(UserWarning, match=r"\(ERR\) is in s, which is not Jy"):
        read_exposure(write(tmp_path / "a.fits", *hdus))


def test_what_is_left_out_is_told(tmp_path):
    path = write(tmp_path / "a.fits", ("SCI", IMAGE), ("DQ", FLAGS[:5]), ("THING", IMAGE))
    with pytest.warns(
        UserWarning, match=r"no noise and no mask was found; left out are 2 DQ .*THING"
    ):
        assert read_exposure(path).mask is None


def test_variances_of_integers_are_floats(tmp_path):
    path = write(tmp_path / "a.fits", ("SCI", IMAGE), ("VAR", FLAGS))
    assert read_exposure(path).variance.dtype == np.float32


# Special images, options


def test_asinh_scaling_of_pan_starrs(tmp_path):
    flux = np.array([[-5.0, 0.0, 1.0, 1e4]])
    offset, softening = 1.5, 20.0
    stored = 2.5 * np.log10(np.e) * np.arcsinh((flux - offset) / softening / 2)
    cards = fits.Header({"BOFFSET": offset, "BSOFTEN": softening})
    path = write(tmp_path / "a.fits", fits.ImageHDU(stored.astype("f4"), cards))
    exposure = read_exposure(path)
    np.testing.assert_allclose(exposure.image, flux, rtol=1e-5, atol=1e-5)
    assert "BSOFTEN" not in exposure.meta  # nobody undoes it again


def test_chunks(tmp_path):
    path = write(tmp_path / "a.fits", ("SCI", IMAGE), ("DQ", FLAGS))
    exposure = read_exposure(path, chunks=(16, 20))
    assert exposure.image.chunks == exposure.mask.chunks == ((20, 20), (16, 14))
    np.testing.assert_array_equal(exposure.compute().image, IMAGE)


def test_options_and_formats_that_do_not_exist(tmp_path):
    path = write(tmp_path / "a.fits", ("SCI", IMAGE))
    with pytest.raises(TypeError, match=r"no option 'ccd' for reading .*a\.fits as 'fits'.*image"):
        read_exposure(path, ccd=3)
    with pytest.raises(
        ValueError, match="cannot read the format 'tiff'; choose among zarr, lsst, decam"
    ):
        read_exposure(path, format="tiff")


# Real files


@pytest.mark.filterwarnings("ignore:'obsfix' made the change")  # by the direct WCS
@pytest.mark.parametrize("stem", ["jw01324001001-01324-o001_t001", "jw02561001002-02561-o001_t003"])
def test_nircam(shared, stem):
    folder = shared / "data/exposures/nircam_pair"
    path = folder / f"{stem}_nircam_clear-f200w_i2d_stamp.fits"
    noise = path.with_suffix(".noise.fits")
    exposure = read_exposure(path, error=noise).cutout(Box(200, 300, 500, 400)).compute()
    with fits.open(path) as hdus, fits.open(noise) as errors:
        image, error = hdus[0].data[300:700, 200:700], errors[0].data[300:700, 200:700]
        sky = WCS(hdus[0].header).all_pix2world([[0, 0], [899, 450]], 0)
        np.testing.assert_array_equal(exposure.image, image)
        known = error > 0
        np.testing.assert_array_equal(exposure.variance[known], np.square(error[known]))
        np.testing.assert_array_equal(np.isinf(exposure.variance), ~known)
        np.testing.assert_array_equal(exposure.mask != 0, ~known)
    assert exposure.meta["BUNIT"] == "MJy/sr"
    np.testing.assert_allclose(exposure.wcs.all_pix2world([[0, 0], [899, 450]], 0), sky, atol=1e-12)


@pytest.mark.parametrize("frame", ["a", "b"])
def test_decam_stack(shared, frame):
    path = shared / f"data/exposures/decam_stack/DEC-OBS04{frame}.mini.fits"
    exposure = read_exposure(path)
    assert exposure.origin == (0, 0)  # LTV is of the raw CCD here
    assert exposure.image.dtype == np.float64
    with fits.open(path) as hdus:
        np.testing.assert_array_equal(exposure.image[BLOCK], hdus[0].data[BLOCK])
        sky = WCS(hdus[0].header).all_pix2world([[0, 0], [255, 100]], 0)
    np.testing.assert_allclose(exposure.wcs.all_pix2world([[0, 0], [255, 100]], 0), sky, atol=1e-12)
