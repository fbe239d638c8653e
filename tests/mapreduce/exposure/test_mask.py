import pickle

import pytest
from dask.base import tokenize

from mapreduce.exposure.mask import MaskPlanes


def test_lsst_planes():
    planes = MaskPlanes.lsst()
    assert (
        list(planes)
        == (
            "BAD SAT INTRP CR EDGE DETECTED DETECTED_NEGATIVE SUSPECT NO_DATA VIGNETTED STREAK"
        ).split()
    )
    assert list(planes.values()) == list(range(11))


def test_bitmask():
    planes = MaskPlanes.lsst()
    assert planes.bitmask("BAD", "NO_DATA") == 0b1_0000_0001
    assert planes.bitmask("SAT", "SAT") == 2
    assert planes.bitmask() == 0


def test_unknown_plane():
    with pytest.raises(KeyError, match="no mask plane 'GHOST'; there are BAD, SAT"):
        MaskPlanes({"BAD": 0, "SAT": 1}).bitmask("BAD", "GHOST")
    assert "GHOST" not in MaskPlanes.lsst()
    assert MaskPlanes.lsst().get("GHOST") is None


def test_add_takes_the_lowest_free_bits():
    planes = MaskPlanes({"BAD": 0, "SAT": 2})
    more = planes.add("CR", "BAD", "EDGE")
    assert dict(more) == {"BAD": 0, "SAT": 2, "CR": 1, "EDGE": 3}
    assert dict(planes) == {"BAD": 0, "SAT": 2}


def test_add_to_full_planes():
    full = MaskPlanes({f"P{bit}": bit for bit in range(31)})
    assert dict(full.add("P3")) == dict(full)
    with pytest.raises(ValueError, match="no bit is left for mask plane 'MORE'"):
        full.add("MORE")


@pytest.mark.parametrize("planes", [{"BAD": "0"}, {"BAD": 1.0}, {3: 1}, {"BAD": True}])
def test_wrong_types(planes):
    with pytest.raises(TypeError, match="a mask plane is a name and a bit number"):
        MaskPlanes(planes)


@pytest.mark.parametrize("bit", [-1, 31, 32])
def test_bits_out_of_range(bit):
    with pytest.raises(ValueError, match=f"BAD: bit {bit} is outside of 0 to 30"):
        MaskPlanes({"BAD": bit})


def test_bits_used_twice():
    with pytest.raises(ValueError, match="share a bit"):
        MaskPlanes({"BAD": 0, "SAT": 0})


def test_is_a_value():
    planes = MaskPlanes({"BAD": 0, "SAT": 1})
    given = {"SAT": 1, "BAD": 0}
    other = MaskPlanes(given)
    given["SAT"] = 5
    assert planes == other == {"BAD": 0, "SAT": 1}
    assert hash(planes) == hash(other)
    assert pickle.loads(pickle.dumps(planes)) == planes
    assert tokenize(planes) != tokenize(planes.add("CR"))
    with pytest.raises(TypeError):
        planes["CR"] = 2
    with pytest.raises(AttributeError):
        planes.extra = 2
