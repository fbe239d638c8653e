import threading

import dask.array as da
import numpy as np
import pytest

from mapreduce.exposure.plane import PlaneSource, Section, cut, lazy, plane_token, read
from tests.support import ArrayPlane

PIXELS = np.arange(30, dtype="f4").reshape(5, 6)
ROWS, COLUMNS = slice(1, 4), slice(2, 6)


class Recorder(ArrayPlane):
    """Remember which blocks were read."""

    def __post_init__(self):
        super().__post_init__()
        self.blocks = []

    def __getitem__(self, slices):
        self.blocks.append(slices)
        return super().__getitem__(slices)


def test_cut_of_an_array_is_a_view():
    part = cut(PIXELS, (ROWS, COLUMNS))
    assert part.base is PIXELS.base or part.base is PIXELS
    np.testing.assert_array_equal(part, PIXELS[ROWS, COLUMNS])


def test_cut_of_a_dask_array_is_lazy():
    part = cut(da.from_array(PIXELS, chunks=2), (ROWS, COLUMNS))
    assert isinstance(part, da.Array)
    np.testing.assert_array_equal(part, PIXELS[ROWS, COLUMNS])


def test_cut_of_a_source_reads_nothing():
    plane = Recorder(PIXELS)
    part = cut(cut(plane, (ROWS, COLUMNS)), (slice(1, 3), slice(0, 2)))
    assert isinstance(part, PlaneSource)
    assert (part.shape, part.dtype, plane.blocks) == ((2, 2), "f4", [])
    np.testing.assert_array_equal(read(part, (slice(0, 2), slice(1, 2))), [[15], [21]])
    assert [(s.start, s.stop) for s in plane.blocks[0]] == [(2, 4), (3, 4)]
    assert len(plane.blocks) == 1


def test_a_section_keeps_to_its_limits():
    part = Section(ArrayPlane(PIXELS), (ROWS, COLUMNS))
    np.testing.assert_array_equal(part[:, :], PIXELS[1:4, 2:6])
    np.testing.assert_array_equal(part[-1:, 1:100], PIXELS[3:4, 3:6])
    np.testing.assert_array_equal(part[::2, ::3], PIXELS[1:4:2, 2:6:3])


def test_sections_of_one_source_have_names_of_their_own():
    plane = ArrayPlane(PIXELS)
    one, same = (cut(plane, (ROWS, COLUMNS)) for _ in range(2))
    other = cut(plane, (ROWS, slice(0, 4)))
    assert plane_token(one) == plane_token(same) != plane_token(other)


def test_read_of_an_array_is_a_view():
    assert np.shares_memory(read(PIXELS, (ROWS, COLUMNS)), PIXELS)


def test_read_gives_the_native_byte_order():
    for plane in (PIXELS.astype(">f4"), ArrayPlane(PIXELS.astype(">f4"))):
        block = read(plane, (ROWS, COLUMNS))
        assert block.dtype.isnative
        np.testing.assert_array_equal(block, PIXELS[ROWS, COLUMNS])


@pytest.mark.parametrize("dtype", ["f4", ">f4"])
def test_lazy_of_a_plane_source(dtype):
    plane = Recorder(PIXELS.astype(dtype))
    array = lazy(plane, "image", chunks=3)
    assert array.chunks == ((3, 2), (3, 3))
    assert plane.blocks == []
    assert array.name.startswith("image-")
    np.testing.assert_array_equal(array, PIXELS)
    assert array.dtype == array.compute().dtype


def test_lazy_of_a_large_source_has_chunks_of_16_mebibytes():
    plane = ArrayPlane(np.broadcast_to(np.float64(0), (3000, 5000)))
    array = lazy(plane, "image")
    assert max(size for axis in array.chunks for size in axis) == 1448


def test_lazy_of_a_dask_array():
    array = da.from_array(PIXELS, chunks=2)
    assert lazy(array, "image") is array
    assert lazy(array, "image", 3).chunks == ((3, 2), (3, 3))


def test_names_follow_the_content_of_a_plane_source():
    one, same, other = (ArrayPlane(PIXELS + n) for n in (0, 0, 1))
    assert lazy(one, "image").name == lazy(same, "image").name
    assert lazy(one, "image").name != lazy(other, "image").name
    assert lazy(one, "image", 2).name != lazy(one, "image", 3).name


def test_an_array_in_memory_is_new_each_time():
    assert plane_token(PIXELS) != plane_token(PIXELS)
    assert plane_token(None) is None


class Unpicklable(ArrayPlane):
    """A plane without a token of its own, as an open file is."""

    __dask_tokenize__ = None

    def __post_init__(self):
        super().__post_init__()
        self.lock = threading.Lock()


def test_lazy_of_a_plane_source_that_cannot_be_named():
    np.testing.assert_array_equal(lazy(Unpicklable(PIXELS), "image", 4), PIXELS)
