"""Damaged and hostile FITS files: what is wrong is said, with the file, the HDU and the card."""

from __future__ import annotations

import gzip
import warnings
import zlib
from random import Random

import numpy as np
import pytest
from astropy.io import fits

from mapreduce import Exposure, GaussianPsf, read_exposure
from mapreduce.io.cards import mended
from mapreduce.io.fits_plane import FitsPlane
from mapreduce.io.hdu import open_data, open_file, scan
from mapreduce.io.header import as_header
from mapreduce.io.psf import read_psfex

IMAGE = np.arange(40 * 30, dtype="i2").reshape(40, 30)


def write(path, *hdus):
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(path, overwrite=True)
    return path


def packed(codec="RICE_1", array=IMAGE, name="SCI", **options):
    return fits.CompImageHDU(array, name=name, compression_type=codec, **options)


def change(path, keyword, value, hdu=1):
    """Give a card of an HDU another value, as text; None takes the card away."""
    data = bytearray(path.read_bytes())
    start = scan(path)[hdu].start
    at = data.index(f"{keyword:<8}=".encode(), start)
    data[at : at + 80] = (
        (f"{keyword:<8}= {value:>20}" if value is not None else "").encode().ljust(80)
    )
    path.write_bytes(data)
    return path


# Where things are


@pytest.mark.parametrize(
    ("keyword", "value", "allowed"),
    [
        *(
            ("NAXIS", value, "0 to 999")
            for value in ("-1", "1000", "2.0", "T", "'2'", "2147483648")
        ),
        *(("NAXIS1", value, "0 or more") for value in ("-30", "1.5", "F", "''", "NaN", "30 40")),
        ("NAXIS2", "-9223372036854775808", "0 or more"),
        ("NAXIS2", None, "0 or more"),
        *(
            ("BITPIX", value, "8 or 16 or 32 or 64 or -32")
            for value in ("0", "7", "-16", "'8'", "T")
        ),
        *(("PCOUNT", value, "0 or more") for value in ("-2400", "-1", "1E400")),
        *(("GCOUNT", value, "1 or more") for value in ("-1", "0", "T")),
    ],
)
def test_the_size_of_an_hdu(tmp_path, keyword, value, allowed):
    path = change(write(tmp_path / "a.fits", fits.ImageHDU(IMAGE)), keyword, value)
    with pytest.raises(OSError, match=rf"a\.fits, HDU 1: .*{keyword}.*; it must be .*{allowed}"):
        read_exposure(path)


@pytest.mark.parametrize("keyword", ["NAXIS1", "PCOUNT", "GCOUNT"])
@pytest.mark.parametrize("value", ["9223372036854775807", "99999999999999999999999"])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_size_beyond_the_file(tmp_path, keyword, value, suffix):
    path = change(write(tmp_path / "a.fits", fits.ImageHDU(IMAGE)), keyword, value)
    if suffix:
        path = tmp_path / "a.fits.gz"
        path.write_bytes(gzip.compress((tmp_path / "a.fits").read_bytes()))
    with pytest.raises(OSError, match=r"HDU 1: the file is truncated: the data take bytes 5760 to"):
        read_exposure(path)


def test_of_equal_cards_the_first_counts(tmp_path):
    hdu = fits.ImageHDU(IMAGE)
    hdu.header.append(("NAXIS1", 7), end=True)
    path = write(tmp_path / "a.fits", hdu)
    np.testing.assert_array_equal(read_exposure(path).image, IMAGE)


def test_a_header_without_end_is_not_read_whole(tmp_path):
    path = tmp_path / "a.fits"
    path.write_bytes(fits.PrimaryHDU().header.tostring().encode().replace(b"END", b"   "))
    with open(path, "r+b") as file:
        file.truncate(2**33)  # of which no disk is used
    with pytest.raises(
        OSError, match=r"a\.fits is damaged: the header of HDU 0 .* no END before byte 2880"
    ):
        read_exposure(path)


@pytest.mark.parametrize("value", [0, 1e30])  # data that are blank, and that look like text
def test_a_header_without_end_takes_neither_data_nor_the_next_hdu(tmp_path, value):
    path = write(tmp_path / "a.fits", fits.ImageHDU(np.full((30, 40), value)), fits.ImageHDU(IMAGE))
    data = path.read_bytes()
    at = data.index(b"END".ljust(80), scan(path)[1].start)
    path.write_bytes(data[:at] + bytes(80).replace(b"\0", b" ") + data[at + 80 :])
    with pytest.raises(OSError, match=r"a\.fits is damaged: the header of HDU 1 .* no END before"):
        read_exposure(path, image=1)


def test_a_header_of_many_blanks(tmp_path):
    header = fits.PrimaryHDU(IMAGE).header.tostring(padding=False).encode()
    header = header[:-80] + b" " * 80 * 200 + header[-80:]
    data = header.ljust(-(-len(header) // 2880) * 2880) + IMAGE.astype(">i2").tobytes()
    (tmp_path / "a.fits").write_bytes(data.ljust(len(data) + 2880, b"\0"))
    np.testing.assert_array_equal(read_exposure(tmp_path / "a.fits").image, IMAGE)


def test_a_bomb_takes_what_its_header_says(tmp_path):
    header = fits.PrimaryHDU(IMAGE).header.tostring().encode()
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    data = packer.compress(header + IMAGE.astype(">i2").tobytes())
    data += b"".join(packer.compress(bytes(2**20)) for _ in range(100)) + packer.flush()
    (tmp_path / "a.fits.gz").write_bytes(data)
    np.testing.assert_array_equal(read_exposure(tmp_path / "a.fits.gz").image, IMAGE)


def test_damage_costs_what_is_asked_for(tmp_path):
    path = write(tmp_path / "a.fits", packed(), packed(name="DQ"))
    change(path, "ZVAL2", "5", hdu=2)
    assert read_exposure(path, mask=None).compute().mask is None
    with pytest.raises(
        OSError, match=r"a\.fits, HDU 2 \(DQ\): BYTEPIX is 5; it must be 1 or 2 or 4"
    ):
        read_exposure(path)


def test_cards_of_junk_can_be_written_again():
    random = Random(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that cards cannot be parsed
        for i in range(300):
            # Some are long enough for a keyword that leaves no room for a value.
            raw = random.randbytes(75).replace(b"=", b"x") + b"=" + random.randbytes(4)
            raw = raw if i % 2 else random.randbytes(80)
            as_header(mended(raw, "a.fits"))


# What an HDU holds


@pytest.mark.parametrize(
    ("keyword", "value", "message"),
    [
        ("BSCALE", "'2'", "BSCALE is '2'; it must be a number"),
        ("BZERO", "T", "BZERO is True; it must be a number"),
        ("BLANK", "1.5", "BLANK is 1.5; it must be a whole number"),
        ("XTENSION", "'IMAGES'", "XTENSION is 'IMAGES'; known are IMAGE, TABLE"),
    ],
)
def test_the_values_of_an_image(tmp_path, keyword, value, message):
    hdu = fits.ImageHDU(IMAGE, name="SCI")
    hdu.header.update({"BSCALE": 2.0, "BZERO": 1.0, "BLANK": -1})
    path = write(tmp_path / "a.fits", hdu, fits.ImageHDU(IMAGE, name="OTHER"))
    change(path, keyword, value)
    with pytest.raises(OSError, match=rf"a\.fits, HDU 1 \(SCI\): {message}"):
        read_exposure(path)
    assert read_exposure(path, image="OTHER").shape == (40, 30)
    with pytest.raises(KeyError, match=f"damaged: {message}"):
        read_exposure(path, image="NONE")


def test_a_plane_without_its_first_card_does_not_vanish(tmp_path):
    path = write(
        tmp_path / "a.fits", fits.ImageHDU(IMAGE, name="SCI"), fits.ImageHDU(IMAGE, name="DQ")
    )
    data = path.read_bytes()
    start = scan(path)[2].start
    path.write_bytes(data[:start] + b"YTENSION" + data[start + 8 :])
    with pytest.raises(OSError, match=r"HDU 2 \(DQ\): there is no card XTENSION"):
        read_exposure(path)


# Tiles


@pytest.mark.parametrize(
    ("codec", "keyword", "value", "message"),
    [
        ("RICE_1", "ZVAL2", "8", "BYTEPIX is 8; it must be 1 or 2 or 4"),
        ("RICE_1", "ZVAL2", "-2147483648", "BYTEPIX is -2147483648; it must be 1 or 2 or 4"),
        ("RICE_1", "ZVAL1", "0", "BLOCKSIZE is 0; it must be a whole number, 1 to 256"),
        ("RICE_1", "ZVAL1", "2147483647", "BLOCKSIZE is 2147483647; it must be"),
        ("RICE_1", "ZNAME2", "3", "ZNAME2 is 3; it must name the parameter in a card ZVAL2"),
        ("RICE_1", "ZCMPTYPE", "'RICE_3'", "ZCMPTYPE is 'RICE_3'; it must be GZIP_1 or"),
        ("RICE_1", "ZBITPIX", "17", "ZBITPIX is 17; it must be 8 or"),
        ("RICE_1", "ZNAXIS", "-2", "ZNAXIS is -2; it must be a whole number, 0 to 999"),
        ("RICE_1", "ZNAXIS2", "-40", "ZNAXIS2 is -40; it must be a whole number, 0 or more"),
        ("RICE_1", "ZNAXIS2", "41", "NAXIS2 is 40; it must be the number of tiles, 41"),
        ("RICE_1", "ZTILE1", "0", "ZTILE1 is 0; it must be a whole number, 1 or more"),
        ("RICE_1", "ZTILE2", None, "there is no card ZTILE2"),
        ("RICE_1", "ZIMAGE", "F", "ZIMAGE is False; of a compressed image it must be T"),
        ("RICE_1", "TFIELDS", "2147483648", "TFIELDS is 2147483648; it must be"),
        ("RICE_1", "TFIELDS", "0", "the columns take 0 bytes of rows of 8"),
        ("RICE_1", "TFORM1", "'1PI(9)'", "the column COMPRESSED_DATA is PI; it must be 1PB"),
        ("RICE_1", "TFORM1", "'2147483648D'", "the columns take 17179869184 bytes of rows of 8"),
        ("RICE_1", "TTYPE1", "'OTHER'", "there is no column COMPRESSED_DATA"),
        ("RICE_1", "PCOUNT", "0", "takes .* of a heap of 0"),
        ("PLIO_1", "TFORM1", "'1PB(9)'", "the column COMPRESSED_DATA is PB; it must be 1PI"),
        ("HCOMPRESS_1", "ZVAL2", "2", "SMOOTH is 2; it must be a whole number, 0 to 1"),
    ],
)
def test_how_an_image_is_tiled(tmp_path, codec, keyword, value, message):
    path = change(write(tmp_path / "a.fits", packed(codec)), keyword, value)
    with pytest.raises(OSError, match=rf"a\.fits, HDU 1 \(SCI\): .*{message}"):
        read_exposure(path).compute()


def test_a_tile_of_more_pixels_than_an_int_counts(tmp_path):
    path = write(tmp_path / "a.fits", packed())
    change(change(path, "ZNAXIS1", "2147483647"), "ZTILE1", "2147483647")
    with pytest.raises(
        OSError, match=r"HDU 1 \(SCI\): a tile has 2147483647 pixels; 268435456 can"
    ):
        read_exposure(path)


@pytest.mark.parametrize("value", ["0", "-1", "10001", "1.5", None])
def test_the_seed_of_dithering(tmp_path, value):
    noise = np.random.default_rng(1).normal(size=(40, 30)).astype("f4")
    path = write(tmp_path / "a.fits", packed(array=noise, quantize_method=1, dither_seed=5))
    change(path, "ZDITHER0", value)
    with pytest.raises(OSError, match=r"HDU 1 \(SCI\): .*ZDITHER0.* a whole number, 1 to 10000"):
        read_exposure(path)


def heap(path):
    hdu = scan(path)[1]
    return hdu.data + hdu.check().heap[0]


def poke(path, at, piece):
    data = bytearray(path.read_bytes())
    data[at : at + len(piece)] = piece
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("count", "offset"), [(-1, 0), (9, -1), (2**31 - 1, 0), (9, 2**31 - 1), (0, 0), (1, 0)]
)
def test_where_tiles_lie(tmp_path, count, offset):
    path = write(tmp_path / "a.fits", packed("GZIP_1", tile_shape=(40, 10)))
    poke(path, scan(path)[1].data + 8, np.array([count, offset], ">i4").tobytes())
    exposure = read_exposure(path)
    np.testing.assert_array_equal(exposure.planes["image"][3:9, 0:10], IMAGE[3:9, :10])
    with pytest.raises(OSError, match=r"a\.fits, HDU 1 \(SCI\)( cannot be read)?: .*"):
        exposure.compute()


@pytest.mark.parametrize(
    ("codec", "at", "piece", "message"),
    [
        ("PLIO_1", 2, b"\xff\x00", "a PLIO list of .* words from -256"),
        ("PLIO_1", 4, b"\x7f\xff", "a PLIO list of 32767 words from 3"),
        ("PLIO_1", 8, b"\x7f\xff", "a PLIO list of .* words from 7"),
        ("HCOMPRESS_1", 0, b"\0", "is not an HCOMPRESS image"),
        ("HCOMPRESS_1", 2, b"\x7f", "is not an HCOMPRESS image"),
        ("HCOMPRESS_1", 22, b"\xff", "is not an HCOMPRESS image"),
    ],
)
def test_what_tiles_say_of_themselves(tmp_path, codec, at, piece, message):
    path = write(tmp_path / "a.fits", packed(codec, tile_shape=(40, 30)))
    np.testing.assert_array_equal(FitsPlane(scan(path)[1])[0:40, 0:30], IMAGE)
    poke(path, heap(path) + at, piece)
    with pytest.raises(OSError, match=rf"a\.fits, HDU 1 \(SCI\): tile 0.*{message}"):
        FitsPlane(scan(path)[1])[0:40, 0:30]


def test_a_tile_that_is_too_short_for_its_pixels(tmp_path):
    path = write(tmp_path / "a.fits", packed("GZIP_1", tile_shape=(40, 30)))
    change(change(path, "ZNAXIS1", "5000000"), "ZTILE1", "5000000")
    with pytest.raises(OSError, match=r"tile 0 has \d+ bytes for 200000000 pixels"):
        FitsPlane(scan(path)[1])[0:1, 0:1]


@pytest.mark.slow
def test_a_tile_that_is_a_bomb(tmp_path):
    path = write(tmp_path / "a.fits", packed("GZIP_1", tile_shape=(40, 30)))
    bomb = gzip.compress(bytes(2**28 + 2**24))
    data = bytearray(path.read_bytes()[: heap(path)])
    data[-8:] = np.array([len(bomb), 0], ">i4").tobytes()
    data += bomb + bytes(-len(bomb) % 2880)
    path.write_bytes(data)
    change(path, "PCOUNT", str(len(bomb)))
    with pytest.raises(OSError, match=r"tile 0 holds more than the 9600 bytes"):
        FitsPlane(scan(path)[1])[0:1, 0:1]


# Tables, and files as a whole


def test_every_hdu_of_a_file_is_checked_before_astropy_has_it(tmp_path):
    table = fits.BinTableHDU.from_columns([fits.Column("a", "J", array=[1])])
    path = change(write(tmp_path / "a.fits", table), "TFIELDS", "2147483648")
    message = "HDU 1: TFIELDS is 2147483648; it must be a whole number, 0 to 999"
    for opened in (
        lambda: open_file(path),
        lambda: open_data(path.read_bytes(), str(path)),
        lambda: read_psfex(path),
    ):
        with pytest.raises(OSError, match=rf"a\.fits, {message}"):
            opened()


@pytest.mark.parametrize("suffix", [".fits", ".zarr"])
def test_an_exposure_does_without_a_psf_that_cannot_be_read(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    Exposure(IMAGE.astype("f4"), psf=GaussianPsf(2.0)).write(path)
    if suffix == ".fits":
        change(path, "TFORM1", "'9D'", hdu=2)
        where = r"a\.fits, HDU 2 \(PSF\)"
    else:
        (path / "fits" / "c" / "0").write_bytes(b"junk")
        where = r"a\.zarr, array 'fits'"
    with pytest.warns(
        UserWarning, match=rf"{where}: the PSF cannot be read, the exposure has none"
    ):
        exposure = read_exposure(path)
    assert exposure.psf is None
    np.testing.assert_array_equal(exposure.image, IMAGE)
