"""OpenedRun: the catalogs and the camera of an FGCM run as they were opened, not yet checked."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..camera.camera import Camera
from ..tables.catalog import Catalog
from .columns import ATMOSPHERE, LOOKUP, STARS, VISITS, ZEROPOINTS, reference_schema
from .find import CATALOGS
from .problems import Problems

__all__ = ["OpenedRun", "find_bands", "names_in", "truth"]


@dataclass(frozen=True, eq=False)
class OpenedRun:
    """What was opened of an FGCM run: what its checks look at, and `FgcmRun` is made of.

    Attributes
    ----------
    visits, zeropoints, atmosphere_parameters, standard_stars, lookup_table, reference_catalog
        Each a `Catalog`; None if there is none, or it could not be opened.
    camera : Camera or None
    bands : tuple of str
        The bands of the standard stars, in the order of their columns.
    tract : int or None
    jacobian_applied : bool or None
    """

    visits: Catalog | None
    zeropoints: Catalog | None
    atmosphere_parameters: Catalog | None
    standard_stars: Catalog | None
    lookup_table: Catalog | None
    reference_catalog: Catalog | None
    camera: Camera | None
    bands: tuple[str, ...]
    tract: int | None
    jacobian_applied: bool | None

    @classmethod
    def of(
        cls, problems: Problems, *, tract: int | None, jacobian_applied: bool | None, **parts: Any
    ) -> OpenedRun:
        """Open the parts of a run, by their names; what is wrong with them goes to the problems."""
        schemas = VISITS, ZEROPOINTS, ATMOSPHERE, STARS, LOOKUP
        catalogs = {schema.name: problems.open(parts[schema.name], schema) for schema in schemas}
        camera = problems.open_camera(parts["camera"])
        bands = find_bands(catalogs["standard_stars"], problems)
        catalogs["standard_stars"] = _of_bands(catalogs["standard_stars"], bands, problems)
        schema = reference_schema(bands)
        catalogs[schema.name] = problems.open(parts[schema.name], schema)
        opened = [catalog for catalog in catalogs.values() if catalog is not None]
        tract = _stated(tract, "TRACT", int, opened, problems)
        jacobian_applied = _stated(jacobian_applied, "WCSJACOB", truth, opened, problems)
        return cls(
            **catalogs, camera=camera, bands=bands, tract=tract, jacobian_applied=jacobian_applied
        )

    @property
    def catalogs(self) -> dict[str, Catalog]:
        """The catalogs that there are, by name."""
        every = {name: getattr(self, name) for name in CATALOGS if name != "camera"}
        return {name: catalog for name, catalog in every.items() if catalog is not None}

    def without(self, names: Iterable[str]) -> OpenedRun:
        """Return the run without some catalogs, which can't be used."""
        without: dict[str, Any] = dict.fromkeys(names)
        return replace(self, **without)

    @property
    def where(self) -> str:
        """How messages name the run."""
        folders = {os.path.dirname(c.path) for c in self.catalogs.values() if c.path is not None}
        return f"the FGCM run in {folders.pop()}" if len(folders) == 1 else "the FGCM run"


def find_bands(stars: Catalog | None, problems: Problems) -> tuple[str, ...]:
    """Return the bands that the header of the standard stars names.

    The card ``BANDS``, with commas or repeated for each band; or ``BAND0``, ``BAND1``, ... as the
    stand-alone package writes them.
    """
    if stars is None:
        return ()
    if "BANDS" in stars.meta:
        return names_in(stars.meta["BANDS"])
    numbered = [stars.meta[key] for i in range(100) if (key := f"BAND{i}") in stars.meta]
    if not numbered:
        text = f"{stars.where}: the header does not say the BANDS of the columns"
        problems.fault(text, "standard_stars")
    return tuple(str(band).strip() for band in numbered)


def _of_bands(stars: Catalog | None, bands: tuple[str, ...], problems: Problems) -> Catalog | None:
    """Return the standard stars without columns that do not have a value for each band."""
    if stars is None or not bands:
        return stars
    wrong = []
    for column in stars.schema.columns:
        if column.length != "bands" or column.name not in stars.columns:
            continue
        if (size := stars.shape(column.name)[0]) != len(bands):
            wrong.append(column.name)
            problems.fault(
                f"{stars.where}: column {column.name} has {size} values in each row; "
                f"there are {len(bands)} bands: {', '.join(bands)}",
                "standard_stars",
                column,
            )
    return stars.without(wrong)


def names_in(value: Any) -> tuple[str, ...]:
    """Return the names in a text with commas, also one that is written like a list, or in an array.

    Examples
    --------
    >>> names_in("SIM-G, SIM-R"), names_in(np.array(["g ", "r"])), names_in("['g', 'r']")
    (('SIM-G', 'SIM-R'), ('g', 'r'), ('g', 'r'))
    """
    if np.ndim(value) == 0:
        value = [item.strip(" '\"") for item in _text(value).strip(" []()").split(",")]
    return tuple(name for item in value if (name := _text(item).strip()))


def _text(value: Any) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def truth(value: Any) -> bool:
    """Return what a card says that is true or false.

    Examples
    --------
    >>> truth(True), truth("F")
    (True, False)
    """
    text = str(value).strip().lower()
    known = {"t": True, "true": True, "1": True, "f": False, "false": False, "0": False}
    if text not in known:
        raise ValueError(f"{value!r} is not true or false")
    return known[text]


def _stated(
    value: Any,
    card: str,
    kind: Callable[[Any], Any],
    catalogs: Iterable[Catalog],
    problems: Problems,
) -> Any:
    """Return a value, or else that of the first header that has a card; None if none has."""
    if value is not None:
        return kind(value)
    for catalog in catalogs:
        if card in catalog.meta:
            try:
                return kind(catalog.meta[card])
            except (TypeError, ValueError) as error:
                text = f"{catalog.where}: card {card} of the header: {error}"
                problems.fault(text, "zeropoints")  # of which alone it says something
                return None
    return None
