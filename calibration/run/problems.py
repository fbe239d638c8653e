"""What is wrong with a run: all of it at once, what can't be used, and of which visits."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..camera.camera import Camera
from ..tables.catalog import Catalog
from ..tables.schema import Findings, Schema

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
    """

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    kind: type[Exception] = ValueError
    visits: dict[str, dict[int, str]] = field(default_factory=dict)

    def open(self, data: Any, schema: Schema) -> Catalog | None:
        """Open a catalog; None if that fails, or there is none. An OSError fails, too."""
        if data is None:
            return None
        try:
            if isinstance(data, OSError):
                raise data
            catalog, findings = Catalog.of(data, schema)
        except (OSError, ValueError) as error:
            self.failed(error)
            return None
        self.add(catalog.where, findings)
        return catalog

    def open_camera(self, camera: Any) -> Camera | None:
        """Open a camera; None if that fails, or there is none."""
        if camera is None or isinstance(camera, Camera):
            return camera
        try:
            if isinstance(camera, OSError):
                raise camera
            return Camera.open(camera)
        except (OSError, ValueError) as error:
            self.failed(error)
            return None

    def failed(self, error: Exception) -> None:
        """Take an exception as an error, and make that of the run one of its kind."""
        self.errors.append(str(error))
        for kind in (FileNotFoundError, OSError):
            if isinstance(error, kind) and not issubclass(self.kind, kind):
                self.kind = kind
                return

    def add(self, where: str, findings: Findings) -> None:
        """Take what is wrong with the columns of a table."""
        self.errors += [f"{where}: {text}" for text in findings.errors]
        self.warnings += [f"{where}: {text}" for text in findings.warnings]

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
