"""A directory of tables that says what they are made of.

Beside the files lies one more, a manifest in JSON. What is there and complete is kept, so that work
that was broken off can be taken up again; what killed runs left is swept away; tables that are made
of something else are refused, or replaced when that is asked for.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mapreduce.io.stream import TEMPORARY, complete_first, remove_abandoned

from ..texts import listed
from .files import SUFFIXES, check_table, open_tables

__all__ = ["MANIFESTS", "TOKEN", "Directory"]

TOKEN = "PROVENAN"
"""The card, and the key in Parquet's metadata, by which a file says what it is made of."""

MANIFESTS = ("provenance.json", "sources.json", "stars.json", "simulation.json")
"""Names of the files that say what directories hold."""


def _says_token(path: Path) -> bool:
    """Whether a table says what it is made of; one that is damaged will be written over."""
    try:
        return TOKEN in open_tables(path)[0].meta
    except (OSError, ValueError):
        return False


def _is_table(path: Path) -> bool:
    return path.suffix in SUFFIXES


@dataclass(frozen=True)
class Directory:
    """A directory of tables, and what it says of them.

    Attributes
    ----------
    path : Path
        Absolute, as workers may have another current folder.
    manifest : str
        Name of the file that says what the tables are made of.
    kind : str
        What the tables are, for messages: "products".
    owns : callable
        Whether a file, by its path within the directory, may be one of ours. Only files are removed
        that may be, and that say what they are made of; none below another directory like this.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from astropy.table import Table
    >>> from calibration.tables.files import write_table
    >>> with TemporaryDirectory() as place:
    ...     directory = Directory(Path(place, "out"), "made_of.json", "stars")
    ...     directory.open({"seed": 3})
    ...     directory.open({"seed": 3}), directory.read()
    ...     write_table(directory.path / "a.fits", Table({"x": [1]}))
    ...     try:
    ...         directory.open({"seed": 4})
    ...     except FileExistsError as error:
    ...         print(str(error).partition("/out ")[2])
    ({'holds': 'stars', 'seed': 3}, {'holds': 'stars', 'seed': 3})
    holds stars made otherwise (seed differ); choose another name, or replace them with \
overwrite=True (--overwrite)
    """

    path: Path
    manifest: str
    kind: str
    owns: Callable[[Path], bool] = _is_table

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(os.path.abspath(self.path)))

    @property
    def where(self) -> str:
        """How messages name it: from the current folder, if it lies in that."""
        path = os.path.relpath(self.path)
        return os.fspath(self.path) if path.startswith(os.pardir) else path

    def open(
        self,
        made_of: Mapping[str, Any],
        *,
        overwrite: bool = False,
        differing: Callable[[Mapping[str, Any], Mapping[str, Any]], list[str]] | None = None,
    ) -> dict[str, Any] | None:
        """Make the directory, or find that it is one of tables that are made of the same.

        What killed runs left in it is removed. Of a new one, and one that is replaced, the manifest
        is ``made_of``; see `check` for the parameters and errors.

        Returns
        -------
        dict or None
            The manifest that is there; None where there was none, or it was replaced.
        """
        found = self.read()
        current = self.check(made_of, overwrite=overwrite, differing=differing)
        self.sweep()
        if current is None:
            if found is not None:
                self.clear()
            self.path.mkdir(exist_ok=True)
            self.write(made_of)
        return current

    def check(
        self,
        made_of: Mapping[str, Any],
        *,
        overwrite: bool = False,
        differing: Callable[[Mapping[str, Any], Mapping[str, Any]], list[str]] | None = None,
    ) -> dict[str, Any] | None:
        """Refuse what is there if it may not be added to, nor be replaced.

        Parameters
        ----------
        made_of : mapping
            What the tables are made of; whatever JSON can hold.
        overwrite : bool, optional
            Whether tables that are made otherwise may be replaced: all of ours are removed.
        differing : callable, optional
            Given the new and the old manifest, what keeps new tables from being added to old ones.
            Default all names in the new one whose values are not those of the old one.

        Returns
        -------
        dict or None
            The manifest that is there; None where there is none, or it is to be replaced.

        Raises
        ------
        FileExistsError
            If it is a file, holds something else, or tables that are made otherwise, and
            ``overwrite`` is false; the message says what differs.
        FileNotFoundError
            If the folder that it is to lie in does not exist.
        """
        if not self.path.parent.is_dir():
            raise FileNotFoundError(
                f"cannot make {self.where}: there is no {os.path.dirname(self.where)}"
            )
        made_of = json.loads(json.dumps(made_of))
        found = self.read()
        if found and found.get("holds", self.kind) != self.kind:
            raise FileExistsError(f"{self.where} holds {found['holds']}; choose another name")
        differences = [] if found is None else (differing or _differing)(made_of, found)
        if differences and not overwrite and any(self.files()):
            why = f"{listed(differences)} differ" if found else f"{self.manifest} is damaged"
            raise FileExistsError(
                f"{self.where} holds {self.kind} made otherwise ({why}); choose another name, "
                "or replace them with overwrite=True (--overwrite)"
            )
        return None if differences else found

    def read(self) -> dict[str, Any] | None:
        """Return the manifest; None where there is nothing yet, empty where it is damaged.

        Raises
        ------
        FileExistsError
            If there is something else than such a directory.
        """
        if not self.path.exists():
            return None
        if not self.path.is_dir():
            raise FileExistsError(f"{self.where} is a file; {self.kind} need a directory")
        try:
            found = json.loads((self.path / self.manifest).read_text(encoding="utf-8"))
        except FileNotFoundError:
            if set(self.path.iterdir()) - set(self.path.glob(TEMPORARY)):
                raise FileExistsError(
                    f"{self.where} is not empty, and holds no {self.kind} ({self.manifest} is not "
                    "there); choose another name"
                ) from None
            return None
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    def write(self, manifest: Mapping[str, Any]) -> None:
        """Write the manifest, in the place of what is there."""
        with complete_first(self.path / self.manifest, overwrite=True) as temporary:
            text = json.dumps({"holds": self.kind, **manifest}, indent=2)
            temporary.write_text(text + "\n", encoding="utf-8")

    def files(self) -> Iterable[Path]:
        """Return the files that are ours, but for the manifest."""
        for path in self.path.rglob("*"):
            inner = path.relative_to(self.path)
            if path.is_file() and self.owns(inner) and not self._is_apart(inner):
                yield path

    def _is_apart(self, inner: Path) -> bool:
        """Whether a file belongs to another directory like this, which lies in ours."""
        folders = [self.path / folder for folder in inner.parents if folder != Path()]
        return any((folder / name).exists() for folder in folders for name in MANIFESTS)

    def clear(self) -> None:
        """Remove the files that are ours."""
        for path in list(self.files()):
            if path.suffix not in SUFFIXES or _says_token(path):
                path.unlink()

    def sweep(self) -> None:
        """Remove what killed runs were writing; not what another run is writing now."""
        remove_abandoned(self.path.rglob(TEMPORARY))

    def is_complete(self, path: Path, token: str) -> bool:
        """Whether a file is there, undamaged, and made of what the token names."""
        try:
            return check_table(path).get(TOKEN) == token
        except (OSError, ValueError):
            return False


def _differing(new: Mapping[str, Any], old: Mapping[str, Any]) -> list[str]:
    return [name for name in new if new[name] != old.get(name)]
