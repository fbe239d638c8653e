import dataclasses

import numpy as np
import pytest

from mapreduce import (
    Average,
    Collector,
    Copy,
    Feather,
    GridConfig,
    Median,
    PixelReducer,
    Sum,
    WeightedAverage,
    map_reduce,
)
from tests.support import all_nan, identity, make_exposure, two_cells

PIXEL_REDUCERS = [Copy, Sum, Average, WeightedAverage, Median, Feather]
MEANS = [Average, WeightedAverage, Median, Feather]


@pytest.mark.parametrize("kind", PIXEL_REDUCERS)
def test_unknown_rules(kind):
    with pytest.raises(ValueError, match="mask is 'and'; choose from or, valid, replace"):
        kind(mask="and")
    if kind in MEANS:
        with pytest.raises(ValueError, match="variance_rule is 'best'; choose from mean"):
            kind(variance_rule="best")


@pytest.mark.parametrize("kind", MEANS)
@pytest.mark.parametrize("rule", ["none", "sum"])
def test_rules_that_a_mean_does_not_have(kind, rule):
    with pytest.raises(ValueError, match="variance_rule is"):
        kind(variance_rule=rule)


@pytest.mark.parametrize("kind", [Copy, Average, WeightedAverage, Median, Feather])
def test_integers_cannot_hold_nan(kind):
    exposure = make_exposure(dtype="i4")
    with pytest.raises(ValueError, match=r"image of int32 cannot hold.*exposure.astype"):
        map_reduce(exposure, identity, reducer=kind(), grid=GridConfig(9, border=1))


def test_weights_need_a_variance():
    exposure = make_exposure(variance=False)
    with pytest.raises(ValueError, match="'weighted_average' needs an exposure with a variance"):
        map_reduce(exposure, identity, reducer="weighted_average")


def test_a_single_plane_for_missing_values():
    assert Copy(bad="NO_DATA").bad == ("NO_DATA",)


# One's own


@dataclasses.dataclass(frozen=True)
class Maximum(PixelReducer):
    name = "maximum"
    variance_rule = "none"

    def begin(self, image, variance):
        image[...] = -np.inf
        variance[...] = np.nan
        return image, variance

    def fold(self, state, where, patch):
        higher = patch.image > state[0][where]
        for plane, values in zip(state, patch[2:4], strict=True):
            np.copyto(plane[where], values, where=higher)

    def finish(self, state):
        state[0][np.isinf(state[0])] = np.nan


def test_a_reducer_of_ones_own():
    result = two_cells(Maximum(), raise_second)
    assert result.image.tolist() == [[1, 12, 13, 14]]
    assert result.meta["MRREDUCE"] == "maximum"
    assert result.meta["MRVARRUL"] == "none"
    assert two_cells(Maximum(bad=("SAT",)), all_nan).mask.tolist() == [[18] * 4]


def raise_second(sub, expanded, full_bbox, cell):
    return sub + 10 * cell.index


class Count(Collector):
    name = "count"

    def collect(self, results):
        return len(results), [result.cell.index for result in results]


def test_a_collector_of_ones_own():
    assert two_cells(Count()) == (2, [0, 1])


def test_bases_do_nothing():
    with pytest.raises(NotImplementedError, match="Nothing must define begin, fold and finish"):
        type("Nothing", (PixelReducer,), {})().begin(None, None)
    with pytest.raises(NotImplementedError, match="Nothing must define collect"):
        type("Nothing", (Collector,), {})().collect([])
