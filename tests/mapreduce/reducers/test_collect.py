import numpy as np
import pytest
from astropy.table import Table
from astropy.wcs import WCS

from mapreduce import (
    Box,
    Cell,
    CellPsf,
    CellResult,
    Concatenate,
)
from tests.support import identity, two_cells


def test_none_returns_what_the_mapper_returned():
    assert two_cells("none", lambda sub, expanded, full: sub.bbox) == [
        Box(0, 0, 3, 1),
        Box(1, 0, 3, 1),
    ]


def test_none_with_the_inputs():
    first, second = two_cells("none", lambda sub, expanded, full: 5, return_sub_exposures=True)
    assert (first.value, second.value) == (5, 5)
    assert first.sub.bbox == first.cell.core == Box(0, 0, 3, 1)
    assert second.expanded.bbox == second.cell.expanded
    assert second.sub.image.tolist() == [[2, 3, 4]]


def concatenated(values, **options):
    """Concatenate what the two cells return."""
    return two_cells(Concatenate(**options), lambda sub, expanded, full, cell: values[cell.index])


def test_concatenate_tables():
    result = concatenated([Table({"x": [1, 2]}, meta={"A": 1}), Table({"x": [3]}, meta={"A": 2})])
    assert isinstance(result, Table)
    assert result["x"].tolist() == [1, 2, 3]
    assert result["cell"].tolist() == [0, 0, 1]


def test_concatenate_mappings():
    result = concatenated([{"x": np.array([1, 2]), "y": [5, 6]}, {"x": 3, "y": 7}])
    assert {name: column.tolist() for name, column in result.items()} == {
        "x": [1, 2, 3], "y": [5, 6, 7], "cell": [0, 0, 1],
    }  # fmt: skip


def test_concatenate_arrays_and_lists():
    one, two = np.array([(1, 2.0)], "i4,f8"), np.array([(3, 4.0)], "i4,f8")
    assert concatenated([one, two]).tolist() == [(1, 2.0), (3, 4.0)]
    assert concatenated([["a"], ["b", "c"]]) == ["a", "b", "c"]


def test_concatenate_data_frames():
    pd = pytest.importorskip("pandas")
    result = concatenated([pd.DataFrame({"x": [1, 2]}), pd.DataFrame({"x": [3]})])
    assert result.to_dict("list") == {"x": [1, 2, 3], "cell": [0, 0, 1]}


@pytest.mark.parametrize("kind", ["pyarrow.table", "pyarrow.record_batch", "polars.DataFrame"])
def test_concatenate_arrow_tables_and_batches(kind):
    package, _, name = kind.partition(".")
    make = getattr(pytest.importorskip(package), name)
    result = concatenated([make({"x": [1, 2]}), make({"x": [3]})])
    assert type(result).__name__ in ("Table", "DataFrame")
    assert result["x"].to_numpy().tolist() == [1, 2, 3]
    assert result["cell"].to_numpy().tolist() == [0, 0, 1]


def test_concatenate_the_input_is_not_changed():
    tables = [Table({"x": [1]}), Table({"x": [2]})]
    concatenated(tables)
    assert tables[0].colnames == ["x"]


def test_concatenate_with_another_cell_column():
    assert list(concatenated([{"x": [1]}, {"x": [2]}], cell_column="n")) == ["x", "n"]
    assert list(concatenated([{"x": [1]}, {"x": [2]}], cell_column=None)) == ["x"]


def test_concatenate_none_is_empty():
    assert concatenated([None, [5]]) == [5]
    assert concatenated([None, {"x": [5]}])["cell"].tolist() == [1]
    assert concatenated([None, None]) == []


def test_concatenate_empty_tables():
    assert len(concatenated([Table({"x": []}), Table({"x": []})])) == 0
    assert concatenated([{"x": []}, {"x": [1]}])["cell"].tolist() == [1]


@pytest.mark.parametrize(
    ("values", "error", "match"),
    [
        ([[1], {"x": [1]}], TypeError, r"different types: \['dict', 'list'\]"),
        ([5.0, 6.0], TypeError, "cannot concatenate float; the mapper must return tables"),
        ([{"x": [1]}, {"y": [1]}], ValueError, r"cell 1 has columns \['y'\], the first \['x'\]"),
    ],
)
def test_concatenate_what_does_not_fit(values, error, match):
    with pytest.raises(error, match=match):
        concatenated(values)


def test_concatenate_mappings_without_columns():
    result = concatenated([{}, {}])
    assert all(len(column) == 0 for column in result.values())


def test_coadd_psf():
    for mapper in (identity, lambda sub, expanded, full: (sub.psf, sub.bbox)):
        psf = two_cells("coadd_psf", mapper)
        assert isinstance(psf, CellPsf)
        assert [(c.index, c.box, c.weight) for c in psf.components] == [
            (0, Box(0, 0, 3, 1), 1.0), (1, Box(1, 0, 3, 1), 1.0),
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("mapper", "error", "match"),
    [
        (lambda sub, expanded, full: sub.psf, TypeError, r"takes an Exposure or a \(psf, box\)"),
        (lambda sub, expanded, full: sub.replace(psf=None), ValueError, "needs a PSF"),
        (lambda sub, expanded, full: sub.replace(wcs=WCS(naxis=2)), ValueError, "another WCS"),
    ],
)
def test_coadd_psf_of_what_has_none(mapper, error, match):
    with pytest.raises(error, match=match) as caught:
        two_cells("coadd_psf", mapper)
    assert "in cell 0" in caught.value.__notes__[0]


def test_concatenate_keeps_a_column_of_the_mapper_s_own():
    results = [CellResult(Cell(0, Box(0, 0, 1, 1), Box(0, 0, 1, 1)), {"cell": [77], "x": [1]})]
    with pytest.raises(ValueError, match="own column 'cell' is in the way"):
        Concatenate().collect(results)
    assert list(Concatenate(cell_column=None).collect(results)) == ["cell", "x"]
