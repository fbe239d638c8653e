"""What is wrong with a run: all of it at once, what can't be used, and of which visits."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ..camera.camera import Camera
from ..tables.catalog import Catalog
from ..tables.schema import Column, Schema

__all__ = ["Problems", "RunWarning"]


class RunWarning(UserWarning):
    """Something is wrong with a part of an FGCM run; the rest of it can be used."""


@dataclass
class Problems:
    """All that is wrong with a run.

    Attributes
    ----------
    errors, warnings : list of str
        A line each: where, what is wrong, what would be right.
    kind : type
        Of the exception that the errors make.
    visits : dict of str to dict of int to str
        By catalog and visit, what is wrong with it.
    needed : mapping of str to frozenset of str, or None
        Columns by catalog without which the run is of no use; None for all that schemas require.
        What is wrong with others is a warning.
    """

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    kind: type[Exception] = ValueError
    visits: dict[str, dict[int, str]] = field(default_factory=dict)
    needed: Mapping[str, frozenset[str]] | None = None

    def needs(self, name: str, column: Column | None = None) -> bool:
        """Whether a catalog is needed, or a column of it."""
        if self.needed is None:
            return column is None or column.required
        return name in self.needed and (column is None or column.name in self.needed[name])

    def fault(self, text: str, name: str, column: Column | None = None) -> None:
        """Take what is wrong with a catalog, or a column of it: an error if that is needed."""
        (self.errors if self.needs(name, column) else self.warnings).append(text)

    def open(self, data: Any, schema: Schema) -> Catalog | None:
        """Open a catalog; None if that fails, or there is none. An OSError fails, too."""
        needed = None if self.needed is None else self.needed.get(schema.name, frozenset())
        opener = partial(Catalog.of, schema=schema, needed=needed)
        if (opened := self._opened(schema.name, data, opener)) is None:
            return None
        catalog, findings = opened
        self.errors += [f"{catalog.where}: {text}" for text in findings.errors]
        self.warnings += [f"{catalog.where}: {text}" for text in findings.warnings]
        return catalog

    def open_camera(self, camera: Any) -> Camera | None:
        """Open a camera; None if that fails, or there is none. An OSError fails, too."""
        return camera if isinstance(camera, Camera) else self._opened("camera", camera, Camera.open)

    def _opened(self, name: str, data: Any, opener: Callable[[Any], Any]) -> Any:
        if data is None:
            return None
        try:
            if isinstance(data, OSError):
                raise data
            return opener(data)
        except (OSError, ValueError) as error:
            if not self.needs(name):
                self.warnings.append(f"the {name} can't be used, and need not: {error}")
                return None
            self.errors.append(str(error))
            for kind in (FileNotFoundError, OSError):
                if isinstance(error, kind) and not issubclass(self.kind, kind):
                    self.kind = kind
                    break
            return None

    def of_visits(self, name: str, texts: Mapping[int, str]) -> None:
        """Take what is wrong with some visits of a catalog."""
        known = self.visits.setdefault(name, {})
        for visit, text in texts.items():
            known[visit] = f"{known[visit]}; {text}" if visit in known else text

    def raise_errors(self, where: str) -> None:
        """Raise all errors as one, if there are any."""
        if self.errors:
            lines = "\n".join(f"- {text}" for text in self.errors)
            many = f"{len(self.errors)} things are" if len(self.errors) > 1 else "something is"
            raise self.kind(f"{many} wrong with {where}:\n{lines}")

    def warn(self, stacklevel: int) -> None:
        """Give all warnings, one by one."""
        for text in self.warnings:
            warnings.warn(text, RunWarning, stacklevel=stacklevel + 1)
