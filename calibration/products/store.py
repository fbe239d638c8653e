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
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from astropy.table import Table

from ..config.config import ProductsConfig
from ..tables.directory import TOKEN, Directory
from ..tables.files import SUFFIXES, open_tables, read_table, write_table

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
    folder : Directory
    format : {"fits", "parquet"}
    token : str
        Names configuration and inputs, as far as they are those of all products; in every file.
    """

    folder: Directory
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
        made_of = {"layout": _LAYOUT, "config": config.to_dict(), "inputs": dict(inputs)}
        made_of = json.loads(json.dumps(made_of))
        store = cls(_folder(directory), config.output_format, _token(made_of))
        more = {"token": store.token, "versions": _versions(), "schema": {}, "run": run}
        found = store.folder.open(made_of | more, overwrite=overwrite, differing=_differences)
        if found is not None and (both := {**_with_choices(found, made_of), "run": run}) != found:
            store.folder.write(both)
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
        folder = _folder(directory)
        if not (folder.path / folder.manifest).is_file():
            raise FileNotFoundError(
                f"{folder.path} holds no products: there is no {folder.manifest}"
            )
        found = folder.read() or {}
        try:
            return cls(folder, found["config"]["output_format"], found["token"])
        except (KeyError, TypeError):
            raise ValueError(f"{folder.path / folder.manifest} is damaged") from None

    @property
    def directory(self) -> Path:
        """Where it is; an absolute path."""
        return self.folder.path

    def provenance(self) -> dict[str, Any]:
        """Return what it says of itself: configuration, inputs, versions, schema, run."""
        return self.folder.read() or {}

    @property
    def meta(self) -> dict[str, str]:
        """What every file says."""
        return {TOKEN: self.token}

    def describe(self, product: str, number: int | None = None) -> None:
        """Say in the provenance what columns a product has, if that is not said yet."""
        provenance = self.provenance()
        schema = provenance.setdefault("schema", {})
        if product not in schema:
            parts = (product,) if number is None else (product, number)
            (table,) = open_tables(self.path(*parts))
            schema[product] = {
                name: {
                    "dtype": field.dtype.name,
                    "shape": list(field.shape),
                    "unit": field.unit or None,
                    "description": field.description,
                }
                for name, field in table.columns.items()
            }
            self.folder.write(provenance)

    def path(self, *parts: Any) -> Path:
        """Return the file of a product, such as ``("photo_calibs", 60600001)``."""
        *folders, name = map(str, parts)
        return self.directory.joinpath(*folders, f"{name}.{self.format}")

    def is_complete(self, *parts: Any) -> bool:
        """Whether a product is there, undamaged, and of this configuration and these inputs."""
        return self.folder.is_complete(self.path(*parts), self.token)

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
        if table.meta.get(TOKEN) != self.token:
            raise ValueError(f"{path} is of other products than those around it; write it again")
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


def _folder(directory: str | os.PathLike[str]) -> Directory:
    return Directory(Path(directory), "provenance.json", "products", _is_product)


def _is_product(path: Path) -> bool:
    if len(path.parts) == 1:
        return path.stem in PRODUCTS and path.suffix in (*SUFFIXES, ".png")
    numbered = len(path.parts) == 2 and path.stem.isdecimal() and path.suffix in SUFFIXES
    return numbered and path.parts[0] in PRODUCTS


def _flat(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a store says of what its products are made of, under names like config.seed."""
    flat: dict[str, Any] = {}
    for part in ("layout", "config", "inputs"):
        values = manifest.get(part)
        flat |= (
            {f"{part}.{name}": value for name, value in values.items()}
            if isinstance(values, dict)
            else {part: values}
        )
    return flat


def _token(manifest: Mapping[str, Any]) -> str:
    flat = {name: value for name, value in _flat(manifest).items() if name not in _APART}
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
