from typing import get_args

import numpy as np
import pytest

from mapreduce import (
    Average,
    Collector,
    PixelReducer,
)
from mapreduce.reducers.names import REDUCERS, CollectorName, PixelName, get_reducer


@pytest.mark.parametrize(
    "name",
    "none copy sum average coadd_psf weighted_average median feather concatenate".split(),
)
def test_by_name(name):
    reducer = get_reducer(name)
    assert reducer.name == name
    assert get_reducer(reducer) is reducer
    assert isinstance(reducer, PixelReducer | Collector)


def test_the_types_know_every_name():
    kinds = {name: issubclass(kind, PixelReducer) for name, kind in REDUCERS.items()}
    assert {name for name, pixels in kinds.items() if pixels} == set(get_args(PixelName))
    assert {name for name, pixels in kinds.items() if not pixels} == set(get_args(CollectorName))


def test_unknown_names():
    with pytest.raises(ValueError, match="no reducer 'mode'; choose from none, copy, sum, average"):
        get_reducer("mode")


@pytest.mark.parametrize("reducer", [None, 5, np.mean, Average])
def test_no_reducer(reducer):
    with pytest.raises(TypeError, match="reducer must be a name, a PixelReducer or a Collector"):
        get_reducer(reducer)
