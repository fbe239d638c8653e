"""Reference catalogs of many files, each with the stars of one piece of the sky.

- HATS: ``dataset/Norder=k/Dir=d/Npix=p.parquet`` holds HEALPix pixel p at nside 2**k, nested,
  wherever the sky is about as dense as suits one file; ``hats.properties`` or ``properties`` says
  what the columns of the positions are.
- LSST: ``131072.fits`` holds that trixel of the hierarchical triangular mesh, and so does a file
  with its id in a longer name; ``master_schema.fits`` and ``config.py`` lie beside them.

Any other directory or list of files is read as a whole.
"""

from __future__ import annotations

import copy
import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.spatial import KDTree

from ..sky.healpix import center, corners
from ..sky.htm import depth_of, trixel_corners
from ..sky.matching import angle, placed, unit_vectors
from ..tables.parts import Part, PartsTable, table_files
from ..tables.schema import Binding

__all__ = ["Caps", "ShardedTable", "open_shards"]

_PROPERTIES = ("hats.properties", "properties")
_COLLECTION = "collection.properties"
_PIXEL = re.compile(r"(?:.*/)?Norder=(\d+)/Dir=\d+/Npix=(\d+)[^/]*(?:/[^/]*)?")
_SCHEMA = "master_schema"
_LOOK = 100  # first rows of a file, which must be where its name says
_DEPTH = 7  # of LSST's reference catalogs


class Caps(NamedTuple):
    """Circles on the sky that the stars of files are in.

    Parameters
    ----------
    vectors : (n, 3) float64 array
        Unit vectors of their centers.
    radii : (n,) float64 array
        deg.
    """

    vectors: np.ndarray
    radii: np.ndarray

    @classmethod
    def around(cls, centers: np.ndarray, edges: np.ndarray) -> Caps:
        """Make those of pieces by their centers, (n, 3), and points of their edges, (n, k, 3)."""
        farthest = np.linalg.norm(edges - centers[:, None], axis=-1).max(axis=1)
        return cls(centers, angle(farthest) * 1.01 + 1e-6)

    def near(self, vectors: np.ndarray, radius: float) -> np.ndarray:
        """Return which overlap circles (deg) about some vectors, and maybe some more."""
        if not len(vectors):
            return np.zeros(len(self.radii), bool)
        chords = np.asarray(KDTree(vectors).query(self.vectors)[0])
        return angle(chords) <= self.radii + radius

    def take(self, rows: np.ndarray | slice) -> Caps:
        """Return some of them."""
        return Caps(self.vectors[rows], self.radii[rows])


class ShardedTable(PartsTable):
    r"""A table of files, of which it may be known where on the sky they are.

    Parameters
    ----------
    parts : sequence of Part
    path : path, optional
    caps : Caps, optional
        Where their stars are; None if that is not known.
    meta : mapping, optional
        What is said of the catalog; default what the first file says.
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
    ...     table = open_shards(folder).near(unit_vectors([135.0], [30.0]), 1.0)
    ...     len(table), [block["ra"] for block in table.blocks(["ra"])]
    (1, [array([135.])])
    """

    def __init__(
        self,
        parts: Sequence[Part],
        path: str | os.PathLike[str] | None = None,
        *,
        caps: Caps | None = None,
        meta: Mapping[str, Any] | None = None,
        rows: int | None = None,
    ) -> None:
        super().__init__(parts, path, meta=meta)
        self.caps, self.rows = caps, rows

    def __len__(self) -> int:
        return super().__len__() if self.rows is None else self.rows

    @property
    def is_empty(self) -> bool:
        """Whether there are no rows; files are looked at until one has some."""
        if self.rows is not None:
            return not self.rows
        return not any(len(self._table(part)) for part in self.parts)

    def near(self, vectors: np.ndarray, radius: float) -> ShardedTable:
        """Return the files alone that overlap circles on the sky, and maybe some more.

        Parameters
        ----------
        vectors : (n, 3) array
            Unit vectors of the centers.
        radius : float
            deg.
        """
        if self.caps is None:
            return self
        rows = np.flatnonzero(self.caps.near(vectors, radius))
        near = copy.copy(self)
        near.__dict__.pop("_starts", None)
        near.parts = tuple(self.parts[row] for row in rows)
        near.caps, near.rows = self.caps.take(rows), None
        return near

    def anywhere(self) -> ShardedTable:
        """Return the same files, of which it is not known where they are."""
        same = copy.copy(self)
        same.caps = None
        return same

    def misplaced(self, ra: Binding, dec: Binding) -> bool:
        """Whether stars of the first file that has some are not where its name says.

        Parameters
        ----------
        ra, dec : Binding
            How their positions are read, in deg.
        """
        if self.caps is None:
            return False
        row = next((i for i, part in enumerate(self.parts) if len(self._table(part))), None)
        if row is None:
            return False
        names = [binding.sources[0] for binding in (ra, dec)]
        found = self._table(self.parts[row]).read(names, slice(0, _LOOK))
        values = [
            np.ma.filled(found[name].astype(float), np.nan) * binding.factor
            for name, binding in zip(names, (ra, dec), strict=True)
        ]
        vectors = unit_vectors(*(value[placed(*values)] for value in values))
        apart = angle(np.linalg.norm(vectors - self.caps.vectors[row], axis=1))
        return bool((apart > self.caps.radii[row]).any())

    def fingerprint(self) -> str:
        """Return a checksum of what is said, and of the names and sizes of the files."""
        digest = hashlib.sha256(repr(sorted(self.meta.items(), key=repr)).encode())
        for name, part in zip(self._names(), self.parts, strict=True):
            digest.update(f"{name} {part.stamp[0]}\n".encode())
        return f"shards-sha256:{digest.hexdigest()}"


def open_shards(data: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> ShardedTable:
    """Open a catalog of files: a directory, or a list of files and directories.

    Raises
    ------
    OSError
        If there are none, or the first can't be read.
    ValueError
        If a HATS catalog is empty.
    """
    if not isinstance(data, str | os.PathLike):
        return _of_parts(PartsTable.of(data).parts, None)
    folder = Path(data).absolute()
    if (folder / _COLLECTION).is_file():
        folder /= _properties(folder / _COLLECTION).get("hats_primary_table_url", "")
    said = next((folder / name for name in _PROPERTIES if (folder / name).is_file()), None)
    if said is None:
        return _of_parts([Part.of(file, folder) for file in table_files(folder)], folder)
    found = table_files(folder / "dataset") if (folder / "dataset").is_dir() else []
    # Beside the partitions may lie others, such as a thumbnail.
    files = [file for file in found if _PIXEL.search(Path(file).as_posix())]
    if not files:
        raise ValueError(
            f"{data} is an empty HATS catalog: there is no dataset/Norder=*/Dir=*/Npix=*"
        )
    meta = _properties(said)
    rows = int(meta["hats_nrows"]) if meta.get("hats_nrows", "").isdigit() else None
    return _of_parts([Part.of(file) for file in files], folder, meta=meta, rows=rows)


def _of_parts(
    parts: Sequence[Part],
    folder: Path | None,
    meta: Mapping[str, Any] | None = None,
    rows: int | None = None,
) -> ShardedTable:
    parts = [part for part in parts if not Path(part.path).name.startswith(_SCHEMA)]
    names = [Path(part.path).as_posix() for part in parts]
    return ShardedTable(parts, folder, caps=_caps(names), meta=meta, rows=rows)


def _caps(paths: Sequence[str]) -> Caps | None:
    """Return where the stars of files are, if all their names say it."""
    pixels = [(int(m[1]), int(m[2])) for path in paths if (m := _PIXEL.fullmatch(path))]
    if paths and len(pixels) == len(paths):
        return _caps_of_pixels(np.array(pixels))
    trixels = [id for path in paths if (id := _trixel(Path(path).name)) is not None]
    if not paths or len(trixels) < len(paths) or len({depth_of(id) for id in trixels}) > 1:
        return None
    edges = trixel_corners(trixels)
    middles = edges.mean(axis=1)
    return Caps.around(middles / np.linalg.norm(middles, axis=1, keepdims=True), edges)


def _caps_of_pixels(pixels: np.ndarray) -> Caps:
    """Return those of HEALPix pixels, (n, 2) orders and numbers."""
    vectors, radii = np.zeros((len(pixels), 3)), np.zeros(len(pixels))
    for order in np.unique(pixels[:, 0]).tolist():
        rows = np.flatnonzero(pixels[:, 0] == order)
        numbers = pixels[rows, 1]
        edges = unit_vectors(*corners(numbers, 2**order, step=4))
        caps = Caps.around(unit_vectors(*center(numbers, 2**order)), edges)
        vectors[rows], radii[rows] = caps
    return Caps(vectors, radii)


def _trixel(name: str) -> int | None:
    """Return the trixel in a file's name: all of it, or the one number of LSST's depth."""
    stem = name.partition(".")[0]
    if stem.isdigit():
        return int(stem) if depth_of(int(stem)) is not None else None
    numbers = {int(text) for text in re.findall(r"(?<!\d)\d+(?!\d)", stem)}
    found = [number for number in numbers if depth_of(number) == _DEPTH]
    return found[0] if len(found) == 1 else None


def _properties(path: Path) -> dict[str, str]:
    """Return the keys and values of a Java properties file, of the kind that catalogs have."""
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    pairs = (line.partition("=") for line in lines if line and not line.startswith(("#", "!")))
    return {key.strip(): value.strip().replace("\\", "") for key, _, value in pairs}
