import sys

import pytest

from mapreduce.mappers.mapper import extras
from mapreduce.mappers.names import MAPPERS, describe, resolve_mapper


def test_every_built_in_mapper_is_one_and_says_what_it_does():
    for name, text in describe().items():
        assert extras(MAPPERS[name]) <= {"cell", "rng"}
        assert text.endswith(".")
        assert 10 < len(text) < 90
    assert {"background", "median", "gaussian"} <= describe().keys()


def test_resolve_a_mapper_by_name(tmp_path, monkeypatch):
    (tmp_path / "my_mappers.py").write_text(
        "class Science:\n    @staticmethod\n    def mapper(sub, expanded, full_bbox):\n"
        "        return sub\n\nnumber = 5\n"
    )
    (tmp_path / "my_broken_mappers.py").write_text("import a_module_that_is_missing\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert resolve_mapper("my_mappers:Science.mapper").__name__ == "mapper"
    assert resolve_mapper("background").__name__ == "subtract_background"
    with pytest.raises(AttributeError, match="there is no 'median' in my_mappers"):
        resolve_mapper("my_mappers:median")
    with pytest.raises(TypeError, match="'my_mappers:number' is a int, which cannot be called"):
        resolve_mapper("my_mappers:number")
    with pytest.raises(ModuleNotFoundError, match="no module 'my_mapers' on the import path"):
        resolve_mapper("my_mapers:median")
    with pytest.raises(ModuleNotFoundError, match="No module named 'a_module_that_is_missing'"):
        resolve_mapper("my_broken_mappers:median")
    sys.modules.pop("my_mappers")


@pytest.mark.parametrize("name", ["medain", "", ":median", "numpy:", "numpy.negative"])
def test_an_unknown_name_lists_the_built_in_ones(name):
    with pytest.raises(ValueError, match="background, .*gaussian, .*median.* package.module:func"):
        resolve_mapper(name)
