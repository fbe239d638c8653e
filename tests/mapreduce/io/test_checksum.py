"""Checksums of FITS files."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.utils.exceptions import AstropyUserWarning
from hypothesis import given
from hypothesis import strategies as st

from mapreduce import Exposure
from mapreduce.io.checksum import block_sum
from tests.support import make_full


@given(
    dtype=st.sampled_from(["u1", "u2", "u4", "u8"]),
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    row=st.integers(0, 9),
    column=st.integers(0, 9),
    seed=st.integers(0, 99),
)
def test_sums_of_blocks_add_up(dtype, shape, row, column, seed):
    """A plane cut in four anywhere has the sum of the words of the whole."""
    pixels = np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype)
    (height, width), total = shape, 0
    row, column = min(row, height), min(column, width)
    for rows in (slice(0, row), slice(row, height)):
        for columns in (slice(0, column), slice(column, width)):
            block = np.ascontiguousarray(pixels[rows, columns])
            total += block_sum(block, rows.start * width + columns.start, width)
    raw = pixels.astype(f">{dtype}").tobytes()
    words = [raw[i : i + 4].ljust(4, b"\0") for i in range(0, len(raw), 4)]
    expected = sum(int.from_bytes(word, "big") for word in words)
    assert total % (2**32 - 1) == expected % (2**32 - 1)  # the carry goes round


@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
@pytest.mark.parametrize("chunk", [None, 7, (5, 30)])
def test_a_file_written_by_block(tmp_path, dtype, chunk):
    image = np.random.default_rng(0).integers(0, 2**8, (23, 19)).astype(dtype)
    exposure = Exposure(image, image.astype("f4"), image.astype("u1"))
    (exposure if chunk is None else exposure.chunk(chunk)).write(tmp_path / "a.fits")
    with fits.open(tmp_path / "a.fits") as hdus:
        assert [(hdu.verify_checksum(), hdu.verify_datasum()) for hdu in hdus] == [(1, 1)] * 4
    exposure.write(tmp_path / "b.fits")
    assert (tmp_path / "a.fits").read_bytes() == (tmp_path / "b.fits").read_bytes()


@pytest.mark.parametrize("name", ["a.fits", "a.fits.fz"])
def test_damage_is_seen(tmp_path, name):
    path = tmp_path / name
    make_full().write(path)
    content = path.read_bytes()
    make_full().write(path, overwrite=True)
    assert path.read_bytes() == content  # no times in it
    with fits.open(path, disable_image_compression=True) as hdus:
        places = {hdu.fileinfo()[part] for hdu in hdus for part in ("hdrLoc", "datLoc")}
    for place in places:
        damaged = bytearray(content)
        damaged[place + 40] ^= 1  # in headers, a comment
        path.write_bytes(damaged)
        with pytest.warns(AstropyUserWarning, match="sum verification failed"):
            with fits.open(path, checksum=True, disable_image_compression=True) as hdus:
                assert len(hdus) == 5
