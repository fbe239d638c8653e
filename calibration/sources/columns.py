"""The columns of a table of sources: what is calibrated, what comes of it, and what is kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from numbers import Integral
from typing import Any, NamedTuple

import astropy.units as u
import numpy as np

from mapreduce.units import INSTRUMENTAL, known_unit

from ..tables.fields import Field
from ..tables.reader import TableReader
from ..tables.schema import Column, Schema, bind
from ..texts import listed

__all__ = ["Bound", "Flux", "SourceColumns"]

_KEPT = "bifuSU"  # kinds of values
_PLACE = ("visit", "detector", "x", "y")


class Flux(NamedTuple):
    """An instrumental flux and what comes of it.

    Attributes
    ----------
    prefix : str
        What the names of the new columns begin with; may be empty.
    value, error : str, str or None
        Columns of instrumental fluxes and of their errors.
    """

    prefix: str
    value: str
    error: str | None

    @property
    def made(self) -> dict[str, Field]:
        """The columns that are made."""
        what = f" of {self.value}" if self.prefix else ""
        names = {
            "Flux": ("nJy", f"flux{what}"),
            "FluxErr": ("nJy", f"1-sigma error of the flux{what}"),
            "Mag": ("mag", f"AB magnitude{what}"),
            "MagErr": ("mag", f"1-sigma error of the AB magnitude{what}"),
        }
        return {
            self.name(ending): Field(np.dtype(np.float64), (), *texts)
            for ending, texts in names.items()
            if self.error is not None or not ending.endswith("Err")
        }

    def name(self, ending: str) -> str:
        """Return the name of a column that is made, such as psfFluxErr or fluxErr."""
        return f"{self.prefix}{ending}" if self.prefix else f"{ending[0].lower()}{ending[1:]}"


class Bound(NamedTuple):
    """How the columns are read from one table.

    Attributes
    ----------
    sources : dict of str to str
        The table's column of each that is needed.
    factors : dict of str to float
        What each has to be multiplied with, for pixels.
    kept : dict of str to Field
        Those that go into the result as they are.
    left_out : dict of str to str
        Others, and why.
    """

    sources: dict[str, str]
    factors: dict[str, float]
    kept: dict[str, Field]
    left_out: dict[str, str]


@dataclass(frozen=True)
class SourceColumns:
    """Which columns of a table of sources are read, made and kept; see `calibrate_sources`.

    Examples
    --------
    >>> columns = SourceColumns.of(fluxes={"psf": "psfFlux_instFlux"}, keep=["visit"])
    >>> columns.fluxes[0]
    Flux(prefix='psf', value='psfFlux_instFlux', error='psfFlux_instFluxErr')
    >>> list(columns.made)
    ['psfFlux', 'psfFluxErr', 'psfMag', 'psfMagErr']
    """

    visit: str | int
    detector: str | int
    x: str
    y: str
    fluxes: tuple[Flux, ...]
    keep: tuple[str, ...] | None

    @classmethod
    def of(
        cls,
        visit: str | int = "visit",
        detector: str | int = "detector",
        x: str = "x",
        y: str = "y",
        fluxes: Any = "instFlux",
        keep: Iterable[str] | None = None,
    ) -> SourceColumns:
        """Make one of what users give.

        Raises
        ------
        TypeError, ValueError
            If something else than names is given, or two results have one name.
        """
        for name, value in {"visit": visit, "detector": detector, "x": x, "y": y}.items():
            number = isinstance(value, Integral) and not isinstance(value, bool)
            if not isinstance(value, str) and not (number and name in ("visit", "detector")):
                kinds = "a column or a number" if name in ("visit", "detector") else "a column"
                raise TypeError(f"{name} is {kinds}, got {value!r}")
        if keep is not None:
            keep = (keep,) if isinstance(keep, str) else tuple(keep)
        columns = cls(visit, detector, x, y, _fluxes(fluxes), keep)
        names = [name for flux in columns.fluxes for name in flux.made]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"fluxes make {listed(sorted(twice))} more than once")
        return columns

    @property
    def made(self) -> dict[str, Field]:
        """The columns that are made."""
        return {name: field for flux in self.fluxes for name, field in flux.made.items()}

    @property
    def schema(self) -> Schema:
        """What a table must have."""
        columns: dict[str, Column] = {}
        for name, column in self.place.items():
            pixels = Column(column, unit="pix", hint="set it to pix, or to none")
            needed = pixels if name in ("x", "y") else Column(column, "i")
            columns.setdefault(column, needed)
        for flux in self.fluxes:
            for name in filter(None, (flux.value, flux.error)):
                columns.setdefault(name, Column(name))
        return Schema("sources", "table of sources", tuple(columns.values()))

    @property
    def place(self) -> dict[str, str]:
        """The columns of visit, detector, x and y, where these are columns."""
        names = {name: getattr(self, name) for name in _PLACE}
        return {name: column for name, column in names.items() if isinstance(column, str)}

    def bind(self, source: TableReader) -> Bound:
        """Find the columns in a table.

        Raises
        ------
        ValueError
            If one is missing or of another kind, or is in nJy already, or one of those that are
            kept has the name of one that is made.
        """
        findings = bind(self.schema, source.columns)
        errors = list(findings.errors)
        sources = {name: binding.sources[0] for name, binding in findings.bindings.items()}
        factors = {name: binding.factor for name, binding in findings.bindings.items()}
        for flux in self.fluxes:
            names = filter(None, (flux.value, flux.error))
            units = {name: source.columns[sources[name]].unit for name in names if name in sources}
            errors += _unit_faults({name: unit for name, unit in units.items() if unit})
        kept, left_out = self._kept(source.columns, errors)
        if taken := [name for name in self.made if name in kept]:
            errors.append(
                f"there is {listed(taken)} already; name the new columns otherwise "
                '(fluxes={"my": ...}), or leave those out (keep=[...])'
            )
        if errors:
            raise ValueError(f"{source.where}: {'; '.join(errors)}")
        return Bound(sources, factors, kept, left_out)

    def _kept(
        self, columns: Mapping[str, Field], errors: list[str]
    ) -> tuple[dict[str, Field], dict[str, str]]:
        names = columns if self.keep is None else self.keep
        if missing := [name for name in names if name not in columns]:
            errors.append(f"there is no column {listed(missing)} to be kept")
        chosen = {name: columns[name] for name in names if name in columns}
        faults = {name: _fault(found) for name, found in chosen.items()}
        kept = {name: found for name, found in chosen.items() if not faults[name]}
        left_out = {name: fault for name, fault in faults.items() if fault}
        if self.keep is not None:
            errors += [f"column {name} cannot be kept: it {why}" for name, why in left_out.items()]
        return kept, left_out


def _fluxes(fluxes: Any) -> tuple[Flux, ...]:
    if isinstance(fluxes, str):
        fluxes = {"": fluxes}
    if not isinstance(fluxes, Mapping) or not fluxes:
        raise TypeError(
            f'fluxes is a column, or a mapping such as {{"psf": "psf_instFlux"}}, got {fluxes!r}'
        )
    made = []
    for prefix, columns in fluxes.items():
        pair = (columns, f"{columns}Err") if isinstance(columns, str) else tuple(columns)
        good = len(pair) == 2 and isinstance(pair[0], str) and isinstance(pair[1], str | None)
        if not good or not isinstance(prefix, str):
            raise TypeError(
                f"fluxes[{prefix!r}] is a column, or a pair of it and that of its error (or None), "
                f"got {columns!r}"
            )
        made.append(Flux(prefix, *pair))
    return tuple(made)


def _fault(found: Field) -> str:
    if found.fault:
        return found.fault
    return "" if found.dtype.kind in _KEPT else f"holds {found.dtype}"


def _unit_faults(units: Mapping[str, str]) -> Iterator[str]:
    """Say what is wrong with the units of a flux and of its error, by their columns."""
    known = {name: known_unit(unit) for name, unit in units.items()}
    for name, unit in known.items():
        if unit is None:
            yield (
                f"column {name} is in {units[name]}, which is not known; set its unit to that of "
                "instrumental fluxes, such as adu, or to none"
            )
        elif unit.is_equivalent(u.nJy):
            yield f"column {name} is in {units[name]}: it is calibrated already"
        elif unit not in INSTRUMENTAL:
            yield (
                f"column {name} is in {units[name]}, which is none of instrumental fluxes, such as "
                "adu, electron or count"
            )
    if len(set(known.values())) > 1 and None not in known.values():
        yield f"columns {' and '.join(units)} are in {' and '.join(units.values())}, two units"
