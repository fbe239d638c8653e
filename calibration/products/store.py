"""Products on disk: tables that other tools read, with their provenance beside them.

A store is a directory::

    provenance.json              configuration, versions, checksums of the inputs, columns
    photo_calibs/60600001.fits   one file per visit and product
    atmospheres/60600001.fits
    ...

Every file says of which provenance it is, and holds checksums. A file is complete, or it is not
there: it gets its name when all of it is written.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from astropy.table import Table

from mapreduce.io.stream import TEMPORARY, complete_first, remove_abandoned

from ..config.config import ProductsConfig
from ..tables.files import SUFFIXES, check_table, read_table, write_table
from ..texts import listed

__all__ = ["PRODUCTS", "Store"]

#: Their names, of folders or single files.
PRODUCTS = (
    "offsets",
    "offset_pixels",
    "photo_calibs",
    "atmospheres",
    "tract_stars",
    "repeatability",
    "repeatability_bins",
)
_LAYOUT = 1  # of the directory and its files; a store of another one is not added to
_PROVENANCE = "provenance.json"
_TOKEN = "PROVENAN"  # the card, and the key in Parquet's metadata
_CHOICES = ("zeropoint_output", "atmosphere_output", "tract_stars")  # a store takes further ones
_TABLE = "inputs.atmosphere_table"  # of which other products than atmospheres know nothing
# What is not in the products: which of them are made, and where inputs lie.
_APART = {*(f"config.{n}" for n in (*_CHOICES, "atmosphere_table", "cycle_number")), _TABLE}
_PACKAGES = ("skyfold", "astropy", "dask", "distributed", "numpy", "scipy", "pyarrow")


@dataclass(frozen=True)
class Store:
    """A directory of products.

    Attributes
    ----------
    directory : Path
    format : {"fits", "parquet"}
    token : str
        Names configuration and inputs, as far as they are those of all products; in every file.
    """

    directory: Path
    format: str
    token: str

    @classmethod
    def open(
        cls,
        directory: str | os.PathLike[str],
        config: ProductsConfig,
        inputs: Mapping[str, str],
        *,
        run: str | None = None,
        overwrite: bool = False,
    ) -> Store:
        """Open a store for products of these inputs and this configuration; make it if need be.

        Parameters
        ----------
        directory : path
            New, empty, or a store.
        config : ProductsConfig
        inputs : mapping of str to str
            Checksums of the inputs, by name.
        run : path, optional
            Where most of them lie, for those who look at the products.
        overwrite : bool, optional
            Whether products of other inputs, or of another configuration, may be replaced: all of
            them are removed.

        Raises
        ------
        FileExistsError
            If the directory holds something else, or products of other inputs or of another
            configuration, and ``overwrite`` is false; the message says what differs.
        FileNotFoundError
            If the folder that it is to lie in does not exist.

        Examples
        --------
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as place:
        ...     store = Store.open(Path(place, "out"), ProductsConfig(), {"visits": "sha256:0"})
        ...     store.path("offsets").name, sorted(os.listdir(store.directory))
        ('offsets.fits', ['provenance.json'])
        """
        directory = Path(directory)
        if not directory.parent.is_dir():
            raise FileNotFoundError(f"cannot make {directory}: there is no {directory.parent}")
        made_of = {"layout": _LAYOUT, "config": config.to_dict(), "inputs": dict(inputs)}
        made_of = json.loads(json.dumps(made_of))
        # Absolute, as workers may have another current folder.
        store = cls(Path(os.path.abspath(directory)), config.output_format, _token(made_of))
        there = _provenance(directory)
        differing = [] if there is None else _differences(made_of, there)
        if differing and not overwrite:
            why = f"{listed(differing)} differ" if there else f"{_PROVENANCE} is damaged"
            raise FileExistsError(
                f"{directory} holds products made otherwise ({why}); choose another name, "
                "or replace them with overwrite=True (--overwrite)"
            )
        if differing:
            store._clear()
        if differing or there is None:
            directory.mkdir(exist_ok=True)
            said = {**made_of, "token": store.token, "versions": _versions(), "schema": {}}
            store._write_provenance({**said, "run": run})
        elif (said := {**_with_choices(there, made_of), "run": run}) != there:
            store._write_provenance(said)
        store._sweep()
        return store

    @classmethod
    def reopen(cls, directory: str | os.PathLike[str]) -> Store:
        """Open a store as it is, to read what it holds or to add what is made of that.

        Raises
        ------
        FileNotFoundError
            If there is none.
        ValueError
            If it does not say what it holds.
        """
        directory = Path(os.path.abspath(directory))
        if not (directory / _PROVENANCE).is_file():
            raise FileNotFoundError(f"{directory} holds no products: there is no {_PROVENANCE}")
        said = _provenance(directory)
        try:
            return cls(directory, said["config"]["output_format"], said["token"])
        except (KeyError, TypeError):
            raise ValueError(f"{directory / _PROVENANCE} is damaged") from None

    def provenance(self) -> dict[str, Any]:
        """Return what it says of itself: configuration, inputs, versions, schema, run."""
        return json.loads((self.directory / _PROVENANCE).read_text())

    @property
    def meta(self) -> dict[str, str]:
        """What every file says."""
        return {_TOKEN: self.token}

    def _clear(self) -> None:
        """Remove all products."""
        for name in PRODUCTS:
            if (self.directory / name).is_dir():
                shutil.rmtree(self.directory / name)
            for suffix in SUFFIXES:
                (self.directory / f"{name}{suffix}").unlink(missing_ok=True)
            (self.directory / f"{name}.png").unlink(missing_ok=True)

    def _sweep(self) -> None:
        """Remove what killed runs were writing; not what another run is writing now."""
        for folder in (self.directory, *(self.directory / name for name in PRODUCTS)):
            remove_abandoned(folder.glob(TEMPORARY))

    def describe(self, product: str, number: int | None = None) -> None:
        """Say in the provenance what columns a product has, if that is not said yet."""
        said = self.provenance()
        if product not in said["schema"]:
            parts = (product,) if number is None else (product, number)
            said["schema"][product] = _columns(read_table(self.path(*parts)))
            self._write_provenance(said)

    def _write_provenance(self, said: Mapping[str, Any]) -> None:
        with complete_first(self.directory / _PROVENANCE, overwrite=True) as temporary:
            temporary.write_text(json.dumps(said, indent=2) + "\n")

    def path(self, *parts: Any) -> Path:
        """Return the file of a product, such as ``("photo_calibs", 60600001)``."""
        *folders, name = map(str, parts)
        return self.directory.joinpath(*folders, f"{name}.{self.format}")

    def is_complete(self, *parts: Any) -> bool:
        """Whether a product is there, undamaged, and of this configuration and these inputs."""
        path = self.path(*parts)
        try:
            return check_table(path).get(_TOKEN) == self.token
        except (OSError, ValueError):
            return False

    def numbers(self, product: str) -> list[int]:
        """Return the visits or tracts that there are files of, in ascending order."""
        stems = (path.stem for path in (self.directory / product).glob(f"*.{self.format}"))
        return sorted(int(stem) for stem in stems if stem.isdecimal())

    def read(self, *parts: Any) -> Table:
        """Read a product, and check that it is undamaged and one of this store.

        Raises
        ------
        FileNotFoundError, ValueError
            If it is not.
        """
        path = self.path(*parts)
        table = read_table(path)
        if table.meta.get(_TOKEN) != self.token:
            raise ValueError(f"{path} is of other products than those around it; write it again")
        table.convert_bytestring_to_unicode()
        return table

    def write(self, table: Table, *parts: Any) -> Path:
        """Write a product, in the place of what is there.

        Raises
        ------
        OSError
            If it cannot be written; what was there before is left.
        """
        path = self.path(*parts)
        path.parent.mkdir(exist_ok=True)
        write_table(path, table, self.meta)
        return path


def _columns(table: Table) -> dict[str, Any]:
    """Return what is to be known of a table's columns."""
    return {
        column.name: {
            "dtype": column.dtype.base.name,
            "shape": list(column.shape[1:]),
            "unit": None if column.unit is None else column.unit.to_string(),
            "description": column.description or "",
        }
        for column in table.itercols()
    }


def _provenance(directory: Path) -> dict[str, Any] | None:
    """Return what a store says of itself; None where there is none yet."""
    if not directory.exists():
        return None
    if not directory.is_dir():
        raise FileExistsError(f"{directory} is a file; products need a directory")
    path = directory / _PROVENANCE
    if not path.exists():
        if set(directory.iterdir()) - set(directory.glob(TEMPORARY)):
            raise FileExistsError(
                f"{directory} is not empty, and holds no products ({_PROVENANCE} is not there); "
                "choose another name"
            )
        return None
    try:
        said = json.loads(path.read_text())
    except ValueError:
        said = None
    return said if isinstance(said, dict) and "schema" in said else {}  # so that all of it differs


def _flat(said: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a store says of what its products are made of, under names like config.seed."""
    flat = {}
    for part in ("layout", "config", "inputs"):
        values = said.get(part)
        flat |= (
            {f"{part}.{name}": value for name, value in values.items()}
            if isinstance(values, dict)
            else {part: values}
        )
    return flat


def _token(said: Mapping[str, Any]) -> str:
    flat = {name: value for name, value in _flat(said).items() if name not in _APART}
    return hashlib.sha256(json.dumps(flat, sort_keys=True).encode()).hexdigest()[:16]


def _differences(new: Mapping[str, Any], old: Mapping[str, Any]) -> list[str]:
    """Return what keeps new products from being added to old ones."""
    new, old = _flat(new), _flat(old)
    names = {n for n in new.keys() | old.keys() if new.get(n) != old.get(n)}
    return sorted(names - _APART | names & {_TABLE} & new.keys() & old.keys())


def _with_choices(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a store says of itself once it holds the products of both."""
    choices = {n: bool(old["config"].get(n)) or new["config"][n] for n in _CHOICES}
    inputs = {**old["inputs"], **new["inputs"]}
    return {**old, "config": {**old["config"], **choices}, "inputs": inputs}


@cache
def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
