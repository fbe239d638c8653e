"""What a catalog should hold, and whether a table does: columns, shapes, units, other names.

`bind` compares a schema with the columns of a table, whatever it is stored in, without looking at
values. `calibration.run.columns` declares the catalogs of an FGCM run.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from typing import NamedTuple

import astropy.units as u

from mapreduce.units import conversion, known_unit

from .fields import Field

__all__ = ["Binding", "Column", "Findings", "Schema", "bind"]

_KINDS = {"i": "iu", "f": "fiu", "U": "SU"}  # what is taken for a whole number, a number, a text
_WORDS = {"i": "whole numbers", "f": "numbers", "U": "text"}
_LENGTHS = {
    "square": "n x n values (1, 4, 9, ...)",
    "detectors": "one value per detector of the camera",
    "bands": "one value per band",
    "any": "an array",
}


@dataclass(frozen=True)
class Column:
    """One column of a catalog.

    Parameters
    ----------
    name : str
        LSST's name of the column.
    kind : {"f", "i", "U"}
        Numbers, whole numbers, texts.
    length : None, int, "square", "detectors", "bands" or "any"
        Values in each row: None for a single one, "square" for n x n, flattened or not.
    unit : str
        What its values are read in; empty if it has none, or none that astropy knows.
    required : bool
        Where nobody says what is needed. With ``absent``, of LSST's tables alone and not of the
        stand-alone package's.
    may_lack : bool
        Whether a table may do without it even where it is needed; something else says when.
    aliases : tuple of str
        Other names, exact but for case and underscores.
    assumed : str
        Unit of a column that goes by one of the other names and does not say its unit.
    limits : (float, float) or None
        Values beyond are in another unit.
    absent : str
        What follows when the column is missing, or can't be read; for messages.
    hint : str
        How a unit that is not known can be told, which is an error then; else it is a warning, and
        taken for that of the schema.
    """

    name: str
    kind: str = "f"
    length: int | str | None = None
    unit: str = ""
    required: bool = True
    may_lack: bool = False
    aliases: tuple[str, ...] = ()
    assumed: str = ""
    limits: tuple[float, float] | None = None
    absent: str = ""
    hint: str = ""

    def excused(self, table: Iterable[str]) -> bool:
        """Whether a table of columns of these names may do without it, even where it is needed.

        The stand-alone package's, whose names are in capitals, may do without more.
        """
        alone = self.required and bool(self.absent) and all(name.isupper() for name in table)
        return self.may_lack or alone

    @property
    def wanted(self) -> str:
        """What the column should hold, in words."""
        unit = f" in {self.unit}" if self.unit else ""
        if self.length is None:
            return _WORDS[self.kind] + unit
        length = f"{self.length} values" if isinstance(self.length, int) else _LENGTHS[self.length]
        return f"{_WORDS[self.kind]}{unit}, {length} in each row"


@dataclass(frozen=True)
class Schema:
    """The columns of a catalog.

    Parameters
    ----------
    name : str
        What `FgcmRun` calls the catalog.
    title : str
        What people call it.
    columns : tuple of Column
    joined : bool
        Whether all tables of a file make up one row.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    joined: bool = False

    @cached_property
    def by_name(self) -> dict[str, Column]:
        """The columns by name."""
        return {column.name: column for column in self.columns}


class Binding(NamedTuple):
    """How a column of a schema is read from a table.

    Parameters
    ----------
    sources : tuple of str
        The table's column; or its columns, where each holds one value of the array.
    shape : tuple of int
        Of a row's values as they are given out.
    factor : float
        From the table's unit to the schema's.
    """

    sources: tuple[str, ...]
    shape: tuple[int, ...] = ()
    factor: float = 1.0


@dataclass
class Findings:
    """What `bind` found.

    Attributes
    ----------
    bindings : dict of str to Binding
    errors, warnings : list of str
    """

    bindings: dict[str, Binding] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def bind(
    schema: Schema, table: Mapping[str, Field], needed: Collection[str] | None = None
) -> Findings:
    """Find the columns of a schema in a table, by their names or other names, and check them.

    What is wrong with a column is an error if it is needed, and else a warning.

    Parameters
    ----------
    schema : Schema
    table : mapping of str to Field
        The table's columns.
    needed : collection of str, optional
        Columns without which the table is of no use; default the required ones.

    Returns
    -------
    Findings
        All that is wrong, a line for each.

    Examples
    --------
    >>> import numpy as np
    >>> schema = Schema("dust", "dust", (Column("visit", "i"), Column("angle", unit="rad")))
    >>> found = bind(schema, {"VISIT": Field(np.dtype("i8")), "angle": Field(np.dtype("S3"))})
    >>> found.bindings["visit"].sources
    ('VISIT',)
    >>> found.errors
    ['column angle holds text; it should hold numbers in rad']
    """
    findings = Findings()
    names, parts = _names(table), _parts(table)
    for column in schema.columns:
        sources = _sources(column, table, names, parts)
        is_needed = column.required if needed is None else column.name in needed
        faults = findings.errors if is_needed else findings.warnings
        if len(sources) > 1 and sources not in parts.values():
            faults.append(f"columns {', '.join(sources)} could each be {column.name}; keep one")
        elif sources:
            faults += _bind_column(column, sources, table, findings)
        elif is_needed and not column.excused(table):
            faults.append(_missing(column, table))
        elif column.absent and (is_needed or needed is None):
            findings.warnings.append(f"there is no column {column.name}: {column.absent}")
    return findings


def _plain(name: str) -> str:
    """Return what two names must have in common: FGCM_ZPT and fgcmZpt do."""
    return name.lower().replace("_", "")


def _names(table: Mapping[str, Field]) -> dict[str, tuple[str, ...]]:
    names: dict[str, tuple[str, ...]] = defaultdict(tuple)
    for name in table:
        names[_plain(name)] += (name,)
    return names


def _parts(table: Mapping[str, Field]) -> dict[str, tuple[str, ...]]:
    """Return columns named like scaling_0, scaling_1, ... by what they have in common, in order."""
    numbered: dict[str, dict[int, str]] = defaultdict(dict)
    for name in table:
        if match := re.fullmatch(r"(.+?)_?(\d+)", name):
            numbered[_plain(match[1])][int(match[2])] = name
    return {
        stem: tuple(columns[i] for i in range(len(columns)))
        for stem, columns in numbered.items()
        if set(columns) == set(range(len(columns)))
    }


def _sources(
    column: Column,
    table: Mapping[str, Field],
    names: Mapping[str, tuple[str, ...]],
    parts: Mapping[str, tuple[str, ...]],
) -> tuple[str, ...]:
    """Return the table's column or columns for a column of a schema."""
    for name in (column.name, *column.aliases):
        if name in table:
            return (name,)
        if found := names.get(_plain(name)):
            return found
    for name in (column.name, *column.aliases) if column.length is not None else ():
        if found := parts.get(_plain(name)):
            return found
    return ()


def _missing(column: Column, table: Mapping[str, Field]) -> str:
    text = f"there is no column {column.name} ({column.wanted})"
    if column.absent and not column.required:
        text += f"; {column.absent}"
    close = get_close_matches(column.name, table, 2)
    return f"{text}; did you mean {' or '.join(close)}?" if close else text


def _bind_column(
    column: Column, sources: tuple[str, ...], table: Mapping[str, Field], findings: Findings
) -> list[str]:
    """Add a column to what was found; return what is wrong with it instead."""
    found = table[sources[0]]
    name = column.name if column.name == sources[0] else f"{column.name} ({sources[0]})"
    shape = found.shape if len(sources) == 1 else (len(sources),)
    errors = []
    if len({(table[s].dtype, table[s].shape, table[s].unit) for s in sources}) > 1:
        errors.append(f"columns {sources[0]} to {sources[-1]} differ in type or unit")
    if found.fault:
        errors.append(f"column {name} {found.fault}")
    elif found.dtype.kind not in _KINDS[column.kind]:
        held = "text" if found.dtype.kind in "SU" else found.dtype
        errors.append(f"column {name} holds {held}")
    elif (length := _length(column, shape)) is None:
        errors.append(f"column {name} holds {_size(shape)}")
    alias = column.name != sources[0] and _plain(sources[0]) != _plain(column.name)
    factor, doubt = _factor(column, found.unit or (column.assumed if alias else ""))
    if factor is None:
        errors.append(f"column {name} is in {found.unit}")
    elif doubt and column.hint:
        errors.append(f"column {name} is in {doubt}, which is not known; {column.hint}")
    elif doubt:
        findings.warnings.append(f"column {name} is in {doubt}, which is not known; {column.unit}?")
    if errors or length is None or factor is None:
        return [f"{error}; it should hold {column.wanted}" for error in errors]
    findings.bindings[column.name] = Binding(sources, length, factor)
    return []


def _size(shape: tuple[int, ...]) -> str:
    return f"{' x '.join(map(str, shape))} values in each row" if shape else "one value in each row"


def _length(column: Column, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """Return the shape in which a column is given out; None where it has another."""
    if column.length == "any":
        return shape
    if column.length is None:
        return () if shape in ((), (1,)) else None
    size = math.prod(shape)
    flat = len(shape) <= 1 or (column.length == "square" and shape == (shape[0],) * 2)
    if not flat or size < 1:
        return None
    if column.length == "square" and math.isqrt(size) ** 2 != size:
        return None
    return None if isinstance(column.length, int) and size != column.length else (size,)


def _factor(column: Column, unit: str) -> tuple[float | None, str]:
    """Return the factor to the schema's unit, None if there is none; and a unit that is unknown."""
    if not column.unit or not unit:
        return 1.0, ""
    if (known := known_unit(unit)) is None:
        return 1.0, unit
    wanted = u.Unit(column.unit)
    if isinstance(known, u.MagUnit) and wanted == u.mag:
        known = known.function_unit
    try:
        convert = conversion(known, wanted)
    except u.UnitConversionError:
        return None, ""
    # Some have a zero point, too: magnitudes of another system.
    return (float(convert(1.0)), "") if convert(0.0) == 0 else (None, "")
