"""HATS catalogs: directories of Parquet files, each with the rows of one HEALPix pixel.

``dataset/Norder=k/Dir=d/Npix=p.parquet`` holds pixel p at nside 2**k, nested, wherever the sky is
about as dense as suits one file; ``hats.properties`` or ``properties`` says what the columns of the
positions are.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ..sky.healpix import overlapping
from ..tables.fields import Field, masked
from ..tables.parquet_reader import ParquetTable
from ..tables.reader import Rows

__all__ = ["HatsTable", "Partition"]

_PROPERTIES = ("hats.properties", "properties")
_COLLECTION = "collection.properties"
_PLACE = re.compile(r"Norder=(\d+)/Dir=\d+/Npix=(\d+)[^/]*")


class Partition(NamedTuple):
    """A file of a catalog, or one of several, and the HEALPix pixel that it is of."""

    order: int
    pixel: int
    path: str


@dataclass(frozen=True, eq=False)
class HatsTable:
    r"""A HATS catalog as a source of columns, read partition by partition.

    Parameters
    ----------
    path : str
        The directory of the catalog.
    meta : dict of str to str
        What its properties say.
    partitions : tuple of Partition
        The files that are read.
    columns : dict of str to Field
        Those of the first file.
    rows : int, optional
        How many there are, where that is known without a look at every file.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from astropy.table import Table
    >>> from calibration.tables.files import write_table
    >>> with TemporaryDirectory() as folder:
    ...     for pixel, ra in ((0, 45.0), (1, 135.0)):
    ...         place = Path(folder, "dataset", "Norder=0", "Dir=0")
    ...         place.mkdir(parents=True, exist_ok=True)
    ...         write_table(place / f"Npix={pixel}.parquet", Table({"ra": [ra], "dec": [40.0]}))
    ...     _ = Path(folder, "properties").write_text("hats_col_ra=ra\nhats_col_dec=dec\n")
    ...     table = HatsTable.open(folder).near(135.0, 30.0, 1.0)
    ...     len(table), [block["ra"] for block in table.blocks(["ra"])]
    (1, [array([135.])])
    """

    path: str
    meta: dict[str, str]
    partitions: tuple[Partition, ...]
    columns: dict[str, Field]
    rows: int | None = None

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> HatsTable:
        """Open a catalog, or the main catalog of a collection."""
        folder = Path(path).absolute()
        if (folder / _COLLECTION).is_file():
            main = _properties(folder / _COLLECTION).get("hats_primary_table_url", "")
            folder = folder / main
        found = [folder / name for name in _PROPERTIES if (folder / name).is_file()]
        if not found:
            raise FileNotFoundError(
                f"{path} is not a HATS catalog: it has no {' or '.join(_PROPERTIES)}"
            )
        partitions = tuple(sorted(_partitions(folder / "dataset")))
        if not partitions:
            raise ValueError(
                f"{path} is an empty HATS catalog: there is no dataset/Norder=*/Dir=*/Npix=*"
            )
        columns = ParquetTable(partitions[0].path).columns
        meta = _properties(found[0])
        rows = int(meta["hats_nrows"]) if meta.get("hats_nrows", "").isdigit() else None
        return cls(str(folder), meta, partitions, columns, rows)

    @staticmethod
    def is_one(path: Any) -> bool:
        """Whether something is the directory of a catalog, or of a collection."""
        names = (*_PROPERTIES, _COLLECTION)
        return isinstance(path, str | os.PathLike) and any(Path(path, n).is_file() for n in names)

    @property
    def where(self) -> str:
        """How messages name it."""
        return Path(self.path).name

    @cached_property
    def _length(self) -> int:
        return sum(len(ParquetTable(partition.path)) for partition in self.partitions)

    def __len__(self) -> int:
        return self._length if self.rows is None else self.rows

    def __repr__(self) -> str:
        return f"HatsTable({self.path!r}, {len(self.partitions)} partitions)"

    def near(self, ra: ArrayLike, dec: ArrayLike, radius: ArrayLike) -> HatsTable:
        """Return the partitions alone that overlap circles on the sky, and maybe some more.

        Parameters
        ----------
        ra, dec, radius : (n,) array_like
            deg.
        """
        circles = np.broadcast_arrays(*map(np.atleast_1d, (ra, dec, radius)))
        wanted = {
            (order, pixel)
            for order in {partition.order for partition in self.partitions}
            for lon, lat, reach in zip(*(values.tolist() for values in circles), strict=True)
            for pixel in overlapping(lon, lat, reach, 2**order).tolist()
        }
        kept = tuple(part for part in self.partitions if (part.order, part.pixel) in wanted)
        return dataclasses.replace(self, partitions=kept, rows=None)

    def read(self, names: Sequence[str], rows: Rows = None) -> dict[str, np.ndarray]:
        """Return columns of rows, counted through the partitions in their order; holds them all."""
        blocks = list(self.blocks(names))
        chosen = slice(None) if rows is None else rows
        columns = {}
        for name in names:
            parts = [block[name] for block in blocks]
            whole = np.concatenate([np.ma.getdata(part) for part in parts])
            missing = np.concatenate([np.ma.getmaskarray(part) for part in parts])
            columns[name] = masked(whole, missing)[chosen]
        return columns

    def blocks(self, names: Sequence[str]) -> Iterator[dict[str, np.ndarray]]:
        """Yield columns of all rows, some at a time."""
        for partition in self.partitions:
            table = ParquetTable(partition.path)
            for name in names:
                if table.columns.get(name) != self.columns[name]:
                    place = os.path.relpath(partition.path, self.path)
                    raise ValueError(
                        f"{self.where}: column {name} of {place} is {table.columns.get(name)}; "
                        f"elsewhere it is {self.columns[name]}"
                    )
            yield from table.blocks(names)

    def fingerprint(self) -> str:
        """Return a checksum of the properties, and of the names and sizes of the partitions."""
        digest = hashlib.sha256(repr(sorted(self.meta.items())).encode())
        for order, pixel, path in self.partitions:
            digest.update(f"{order} {pixel} {os.path.getsize(path)}\n".encode())
        return f"hats-sha256:{digest.hexdigest()}"

    def __dask_tokenize__(self) -> tuple[object, ...]:
        return "HatsTable", self.path, self.partitions, sorted(self.meta.items())


def _partitions(dataset: Path) -> Iterator[Partition]:
    """Yield the files of a catalog; a pixel may also have a directory of them."""
    for path in dataset.glob("Norder=*/Dir=*/Npix=*"):
        if match := _PLACE.fullmatch(path.relative_to(dataset).as_posix()):
            for file in sorted(path.iterdir()) if path.is_dir() else [path]:
                if not file.name.startswith((".", "_")):
                    yield Partition(int(match[1]), int(match[2]), str(file))


def _properties(path: Path) -> dict[str, str]:
    """Return the keys and values of a Java properties file, of the kind that catalogs have."""
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    pairs = (line.partition("=") for line in lines if line and not line.startswith(("#", "!")))
    return {key.strip(): value.strip().replace("\\", "") for key, _, value in pairs}
