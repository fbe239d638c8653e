"""Regions of the output, and the pieces that fill them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mapreduce import Box, Exposure, MaskPlanes
from mapreduce.fold import Fold, Piece, put_together, valid_pixels
from mapreduce.job import Job
from mapreduce.reducer import get_reducer

BOX = Box(3, -2, 12, 10)
PROPERTY = settings(max_examples=60, deadline=None, derandomize=True)


def make_piece(index, box, seed=None, dtype="f4", planes=("image", "variance")):
    rng = np.random.default_rng(index if seed is None else seed)
    return Piece(index, box, box, {n: rng.uniform(1, 9, box.shape).astype(dtype) for n in planes})


def grid_of_pieces(columns, rows, width=4, height=2):
    """Pieces that tile a box, y fastest."""
    return [
        make_piece(x * rows + y, Box(3 + x * width, -2 + y * height, width, height))
        for x in range(columns)
        for y in range(rows)
    ]


# Putting together


@pytest.mark.parametrize(("columns", "rows"), [(1, 3), (3, 1), (3, 5)])
def test_pieces_that_tile_a_rectangle_become_one(columns, rows):
    pieces = grid_of_pieces(columns, rows)
    (one,) = put_together(pieces, None)
    assert one.box == one.part == Box(3, -2, 4 * columns, 2 * rows)
    for piece in pieces:
        for name, plane in piece.planes.items():
            np.testing.assert_array_equal(one.planes[name][piece.part.slices(one.part)], plane)


def test_order_does_not_matter():
    pieces = grid_of_pieces(3, 5)
    (one,) = put_together(pieces, None)
    (other,) = put_together(pieces[::-1], None)
    np.testing.assert_array_equal(one.planes["image"], other.planes["image"])


def test_a_joined_piece_can_be_taken_apart():
    pieces = grid_of_pieces(2, 2)
    (one,) = put_together(pieces, None)
    region = Box(6, -2, 2, 3)  # two columns of pixels, one of each column of pieces
    apart = one.cut(region).copy().taken_apart()
    assert [(piece.index, piece.box) for piece in apart] == [(p.index, p.box) for p in pieces]
    for piece, whole in zip(apart, pieces, strict=True):
        assert piece.part == whole.part.clip(region)
        np.testing.assert_array_equal(piece.planes["image"], whole.cut(region).planes["image"])
    (left, _) = one.cut(Box(3, -2, 2, 4)).taken_apart()
    assert left.index == 0


@pytest.mark.parametrize(
    "second",
    [
        make_piece(1, Box(3, 1, 4, 2)),  # a gap of a row
        make_piece(1, Box(3, -1, 4, 2)),  # overlaps
        make_piece(1, Box(4, 0, 4, 2)),  # to the side
        make_piece(1, Box(3, 0, 5, 2)),  # wider
        make_piece(1, Box(3, -2, 4, 2)),  # the same again
        make_piece(1, Box(3, 0, 4, 2), dtype="f8"),
        make_piece(1, Box(3, 0, 4, 2), planes=("image",)),
        make_piece(1, Box(3, 0, 4, 80_000)),  # not small
        Piece(1, Box(3, 0, 4, 2), Box(3, 0, 4, 2), None),
    ],
)
def test_what_stays_apart(second):
    pieces = [make_piece(0, Box(3, -2, 4, 2)), second]
    assert put_together(pieces, None) is pieces


def test_overlaps_do_not_make_up_for_holes():
    boxes = [Box(0, 0, 2, 2), Box(2, 0, 2, 2), Box(0, 2, 2, 2), Box(2, 0, 2, 2)]
    pieces = [make_piece(n, box) for n, box in enumerate(boxes)]
    assert put_together(pieces, None) is pieces


def test_what_is_given_is_taken_from_the_source():
    source = Exposure(np.zeros((30, 30), "f4"), np.ones((30, 30), "f4"), origin=(0, -9))
    pieces = [piece._replace(given=("variance",)) for piece in grid_of_pieces(2, 2)]
    (one,) = put_together(pieces, source)
    assert np.shares_memory(one.planes["variance"], source.variance)
    pieces[1] = pieces[1]._replace(given=())
    (one,) = put_together(pieces, source)
    assert (one.planes["variance"] != 1).any()


def test_nothing_to_put_together():
    assert put_together([], None) == []


# Folding


def make_job(reducer, **options):
    planes = MaskPlanes.lsst().add("INVALID_MAPREDUCE")
    dtypes = {"image": np.dtype("f4"), "variance": np.dtype("f4"), "mask": np.dtype("i4")}
    return Job(
        mapper=None,
        extras=frozenset(),
        kwargs={},
        reducer=type(get_reducer(reducer))(**options),
        on_error="raise",
        seed=0,
        reach=0,
        box=BOX,
        dtypes=dtypes,
        mask_planes=planes,
        shells={},
    )


def fold(job, pieces):
    planes = {name: np.full(BOX.shape, 77, dtype) for name, dtype in job.dtypes.items()}
    planes["mask"][...] = 2
    region = Fold(job, BOX, BOX, planes)
    with np.errstate(all="ignore"):
        for piece in pieces:
            region.add(piece)
        region.finish()
    return Exposure(**planes, origin=BOX[:2], mask_planes=job.mask_planes)


boxes = st.builds(
    Box.from_edges,
    st.integers(0, 8),
    st.integers(-4, 4),
    st.integers(9, 17),
    st.integers(5, 12),
)


@PROPERTY
@given(
    st.lists(st.tuples(boxes, st.sampled_from(["plain", "nan", "inf"])), max_size=6),
    st.sampled_from(["copy", "sum", "average", "weighted_average", "median"]),
)
def test_putting_together_does_not_change_a_bit(parts, reducer):
    """Cut into rows and put together again, pieces give what they give whole."""
    whole, joined = [], []
    for number, (box, kind) in enumerate(parts):
        piece = make_piece(number, box)
        if kind == "nan":
            piece.planes["image"][0, 0] = np.nan
        elif kind == "inf":
            piece.planes["variance"][-1, -1] = np.inf
            piece.planes["image"][-1, -1] = 0
        whole.append(piece)
        rows = [piece.cut(Box(box.x0, y, box.width, 1)) for y in range(box.y0, box.y1)]
        joined += put_together(rows, None)
    job = make_job(reducer)
    expected, result = fold(job, whole), fold(job, joined)
    assert len(joined) == len(whole)
    for name, plane in expected.planes.items():
        np.testing.assert_array_equal(result.planes[name], plane)


def test_a_result_that_overflows_in_the_output_is_flagged():
    """It is valid as it comes, and inf * 0 as it is kept."""
    piece = Piece(
        0, BOX, BOX, {"image": np.full(BOX.shape, 1e300), "variance": np.zeros(BOX.shape)}
    )
    done = fold(make_job("average"), [piece])
    assert (done.mask == 2 | done.mask_planes.bitmask("INVALID_MAPREDUCE", "BAD", "NO_DATA")).all()


def test_negative_variance_has_no_square_root():
    piece = make_piece(0, BOX)
    piece.planes["variance"][2, 3] = -1
    done = fold(make_job("average", variance_rule="correlated"), [piece])
    assert np.argwhere(done.mask != 2).tolist() == [[2, 3]]


@pytest.mark.parametrize("reducer", ["sum", "average"])
def test_more_values_than_a_byte_counts(reducer):
    one = {"image": np.ones(BOX.shape, "f4"), "variance": np.ones(BOX.shape, "f4")}
    done = fold(make_job(reducer), (Piece(n, BOX, BOX, one) for n in range(300)))
    assert (done.image == (300 if reducer == "sum" else 1)).all()
    assert (done.mask == 2).all()


@pytest.mark.parametrize("reducer", ["copy", "sum", "average"])
def test_more_places_than_are_compared_one_by_one(reducer):
    pieces = [make_piece(3 * n, Box(BOX.x0 + n % 12, BOX.y0 + n // 12, 1, 1)) for n in range(119)]
    done = fold(make_job(reducer), pieces)
    values = [piece.planes["image"].item() for piece in pieces]
    np.testing.assert_array_equal(done.image.ravel()[:-1], np.array(values, "f4"))
    missing = 0 if reducer == "sum" else np.nan
    np.testing.assert_array_equal(done.image[-1, -1], missing)


def test_negative_zero_becomes_zero_in_every_sum():
    """As 0 + -0.0 is 0.0, wherever a value is the first of its pixel."""
    minus = {"image": np.full(BOX.shape, -0.0, "f4"), "variance": np.ones(BOX.shape, "f4")}
    for pieces in ([Piece(0, BOX, BOX, minus)], [Piece(n, BOX, BOX, minus) for n in (0, 1)]):
        assert not np.signbit(fold(make_job("average"), pieces).image).any()


# Validity


@pytest.mark.parametrize(
    ("image", "variance", "valid"),
    [
        ([1, 2], [3, 4], None),
        ([1, np.nan], [3, 4], [True, False]),
        ([1, 2], [np.nan, 4], [False, True]),
        ([np.inf, 2], [0, 4], [False, True]),
        ([np.inf, -np.inf], [1, 1], None),
        ([np.inf, np.nan], None, [True, False]),
        ([3e38, 3e38], [3e38, -3e38], None),
    ],
)
def test_valid_pixels(image, variance, valid):
    image = np.array([image], "f4")
    with np.errstate(all="ignore"):
        found = valid_pixels(image, None if variance is None else np.array([variance], "f4"))
    assert (found is None) == (valid is None)
    if valid is not None:
        assert found.tolist() == [valid]


def test_integers_are_valid():
    assert valid_pixels(np.ones((2, 2), "i4"), None) is None
