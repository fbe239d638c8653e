"""The standard stars by tract: a Delayed table for each, and files of all of them.

No more is held than an index, of the rows between which a partition of the catalog has stars of a
tract::

    catalog --> partitions --> index
    index, a tract     --> the rows between which it is --> Delayed of a table
    index, all tracts  --> all partitions, sorted by tract --> a file for each tract
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from dask.base import compute, tokenize
from dask.delayed import Delayed, delayed

from ..config import options
from ..run.problems import RunWarning
from ..run.run import FgcmRun
from ..sky.skymap import SkyMap
from ..tables.catalog import Catalog
from ..tables.directory import TOKEN, Directory
from ..tables.files import SUFFIXES, check_format
from ..texts import listed
from .rows import StarIndex, StarReader
from .shards import write_shards

__all__ = ["TractStars", "tract_stars"]

_PARTITION = 2**20  # rows; as many as the row groups have that pyarrow writes


def tract_stars(
    run: FgcmRun, sky_map: SkyMap, offsets: Mapping[str, float] | Delayed | None = None
) -> TractStars:
    """Return the standard stars of a run by tract; see `TractStars`.

    Parameters
    ----------
    run : FgcmRun
    sky_map : SkyMap
    offsets : mapping of str to float, or Delayed of one, optional
        Reference offset of each band, mag, that is added to its magnitudes.

    Raises
    ------
    ValueError
        If the run has no standard stars, or a band has no offset.

    Examples
    --------
    >>> run = FgcmRun.open("fgcm_run")  # doctest: +SKIP
    >>> stars = tract_stars(run, RingsSkyMap(120))  # doctest: +SKIP
    >>> table = stars[7480].compute()  # doctest: +SKIP
    >>> files = stars.write("tract_stars")  # doctest: +SKIP
    """
    if run.standard_stars is None:
        raise ValueError(f"{run!r} has no standard_stars; open it with standard_stars=...")
    return TractStars(run.standard_stars, run.bands, sky_map, offsets)


class TractStars(Mapping[int, Delayed]):
    """The standard stars by tract: a Delayed table for each tract that has any.

    Which tracts these are is found when it is first asked for: all positions are read once, in
    parallel, with whatever scheduler dask is set to. A tract's Delayed reads its stars, and the
    positions of those that lie between them in the catalog: few where it is ordered by position,
    all where it has no order. `write` reads the catalog once for all tracts, whatever its order.

    Tables have a row per star, in the catalog's order: ``fgcm_id``; ``isolated_star_id``, if the
    catalog has it; ``ra``, ``dec`` (deg); and per band ``mag_<band>``, ``magErr_<band>`` (AB mag,
    float64, NaN where there is no magnitude) and ``ngood_<band>``. Their ``meta`` says ``TRACT``,
    ``BANDS``, ``SKYMAP``, and which ``OFFSETS`` of the bands were added.

    Parameters
    ----------
    catalog : Catalog
        The standard stars.
    bands : iterable of str
        In the order of its columns.
    sky_map : SkyMap
    offsets : mapping of str to float, or Delayed of one, optional
        Of each band, mag, added to its magnitudes, which have no absolute calibration by
        themselves. A band whose offset is NaN has no magnitudes. Default 0.
    partition : int, optional
        Rows that a task reads at once.

    Raises
    ------
    TypeError
        If the sky map or the offsets are something else.
    ValueError
        If a band has no offset; if offsets are a Delayed, when they are computed.

    Warns
    -----
    RunWarning
        When tracts are found, if stars are in none, as their position is NaN, infinite or beyond a
        pole; or if there are no stars.

    Examples
    --------
    >>> from calibration.run.columns import STARS
    >>> from calibration.sky.skymap import RingsSkyMap
    >>> stars = {"id": [5, 6, 7], "coord_ra": [0.1, 3.1, 0.1], "coord_dec": [0.0, -1.5, 0.02]}
    >>> stars |= {"mag_std_noabs": [[18.5], [17.5], [99.0]], "magErr_std": np.full((3, 1), 0.01)}
    >>> catalog, _ = Catalog.of(stars | {"ngood": [[2], [3], [0]]}, STARS)
    >>> by_tract = TractStars(catalog, ["r"], RingsSkyMap(3), offsets={"r": 0.25})
    >>> by_tract.counts
    {0: 1, 9: 2}
    >>> table = by_tract[9].compute(scheduler="sync")
    >>> table["fgcm_id"].tolist(), table["mag_r"].tolist(), table["mag_r"].unit
    ([5, 7], [18.75, nan], Unit("mag"))
    """

    def __init__(
        self,
        catalog: Catalog,
        bands: Iterable[str],
        sky_map: SkyMap,
        offsets: Mapping[str, float] | Delayed | None = None,
        *,
        partition: int = _PARTITION,
    ) -> None:
        if not isinstance(sky_map, SkyMap):
            raise TypeError(f"sky_map must be a SkyMap, got {type(sky_map).__name__}")
        self.reader = StarReader(catalog, tuple(bands), sky_map)
        if not isinstance(offsets, Delayed):
            shifts = self.reader.shifts(offsets)
            offsets = dict(zip(self.reader.bands, shifts, strict=True))
        self.offsets = offsets
        self.partition = options.count(1)("partition", partition)

    def __getitem__(self, tract: int) -> Delayed:
        if tract not in self:
            raise KeyError(f"tract {tract} has no stars; {len(self)} tracts have")
        key = f"tract-stars-{self._token}-{tract}"
        read = delayed(StarReader.table)
        entries = self.index.entries_of(tract)
        return read(self.shared, int(tract), entries, self.offsets, dask_key_name=key)

    def __contains__(self, tract: object) -> bool:
        return isinstance(tract, int | np.integer) and tract in self.index

    def __iter__(self) -> Iterator[int]:
        return iter(self.index.tracts.tolist())

    def __len__(self) -> int:
        return len(self.index.tracts)

    def __repr__(self) -> str:
        known = f" in {len(self)} tracts" if "index" in vars(self) else ""
        return f"<TractStars of {len(self.reader.catalog)} stars{known} of {self.reader.sky_map}>"

    @property
    def counts(self) -> dict[int, int]:
        """How many stars each tract has."""
        return dict(zip(self, self.index.totals.tolist(), strict=True))

    @property
    def partitions(self) -> list[tuple[int, int]]:
        """The first row, and the one after the last, of each part that a task reads."""
        count = len(self.reader.catalog)
        starts = range(0, count, self.partition)
        return [(start, min(start + self.partition, count)) for start in starts]

    @cached_property
    def index(self) -> StarIndex:
        """Where the stars of each tract are in the catalog."""
        survey = delayed(StarReader.survey)
        parts = [survey(self.shared, n, *rows) for n, rows in enumerate(self.partitions)]
        index = StarIndex.of(compute(*parts))
        catalog = self.reader.catalog
        if index.n_lost:
            text = (
                f"{index.n_lost} of {len(catalog)} stars, in rows {listed(index.lost)}, have no "
                "position on the sky, so they are in no tract"
            )
        else:
            text = "there are no stars, so there are no tracts"
        if index.n_lost or not len(index.tracts):
            warnings.warn(f"{catalog.where}: {text}", RunWarning, stacklevel=2)
        return index

    @cached_property
    def shared(self) -> Delayed:
        """What reads the stars, as a Delayed that enters a graph once."""
        name = f"star-reader-{tokenize(self.reader)}"
        return delayed(self.reader, name=name, traverse=False)

    def write(
        self,
        directory: str | os.PathLike[str],
        name: str = "tract_{tract}.parquet",
        *,
        tracts: Iterable[int] | None = None,
        meta: Mapping[str, Any] | None = None,
        overwrite: bool = False,
        progress: Callable[[int], Any] | None = None,
    ) -> dict[int, Path]:
        """Write a file for each tract, with whatever scheduler dask is set to.

        Every partition of the catalog is read, sorted by tract and kept on disk; then every tract
        is put together from what the partitions have of it. A task holds about one partition,
        however large the catalog or a tract is, and has one file open, or two. Meanwhile a folder
        in ``directory``, which all workers must see, holds a second copy of the stars. A file gets
        its name when all of it is written; those that are there and complete are kept.

        Parameters
        ----------
        directory : path
            New, in a folder that exists, or empty, or one of these stars.
        name : str, optional
            Of a file, with ``{tract}`` for the tract; ends in ``.parquet`` or ``.fits``.
        tracts : iterable of int, optional
            Default all.
        meta : mapping, optional
            More to be said of each table: numbers and texts by names of up to 8 characters.
        overwrite : bool, optional
            Whether stars of another catalog, or under other names, are replaced: all of them.
        progress : callable, optional
            Called now and then with the number of tracts that were written since the last call.

        Returns
        -------
        dict of int to Path
            The file of each tract.

        Raises
        ------
        FileExistsError
            If the directory holds something else, or other stars, and ``overwrite`` is false;
            before anything is written.
        ImportError
            If files are to be Parquet and pyarrow is not installed.
        KeyError
            If a tract has no stars.
        OSError
            If the catalog cannot be read, or a file not be written.
        ValueError
            If the name is not of this form, or a band has no offset.
        """
        _check_name(name)
        wanted = self._wanted(tracts)
        made_of = {
            "name": name,
            "stars": self.reader.catalog.fingerprint(),
            "bands": list(self.reader.bands),
            "sky_map": repr(self.reader.sky_map),
            "offsets": self._shifts,
            "meta": dict(meta or {}),
        }
        folder = Directory(Path(directory), "stars.json", "tract stars")
        folder.open(made_of, overwrite=overwrite)
        paths = {tract: folder.path / name.format(tract=tract) for tract in wanted}
        token = tokenize(made_of)
        check = delayed(folder.is_complete, pure=False)
        complete = compute(*(check(path, token) for path in paths.values()))
        missing = [tract for tract, there in zip(paths, complete, strict=True) if not there]
        more = {**(meta or {}), TOKEN: token}
        self.put({tract: paths[tract] for tract in missing}, more, progress)
        return paths

    def put(
        self,
        paths: Mapping[int, Path],
        meta: Mapping[str, Any],
        progress: Callable[[int], Any] | None = None,
    ) -> None:
        """Write the files of some tracts, in the place of what is there; see `write`."""
        write_shards(
            self.reader,
            self.shared,
            self.index,
            self.partitions,
            self._shifts,
            paths,
            meta,
            progress,
        )

    def _wanted(self, tracts: Iterable[int] | None) -> list[int]:
        """Return the tracts that are to be written, in ascending order."""
        if tracts is None:
            return list(self)
        wanted = sorted({int(tract) for tract in tracts})
        if unknown := [tract for tract in wanted if tract not in self]:
            raise KeyError(f"tracts {listed(unknown)} have no stars; {len(self)} tracts have")
        return wanted

    @cached_property
    def _shifts(self) -> list[float]:
        offsets = self.offsets
        return self.reader.shifts(offsets.compute() if isinstance(offsets, Delayed) else offsets)

    def __dask_tokenize__(self) -> tuple[object, ...]:
        return "TractStars", self._token

    @cached_property
    def _token(self) -> str:
        return tokenize(self.reader, self.offsets)


def _check_name(name: str) -> None:
    """Refuse names that are not a file for each tract."""
    try:
        differs = name.format(tract=0) != name.format(tract=1)
    except (LookupError, ValueError):
        differs = False
    if not differs or not name.endswith(SUFFIXES) or Path(name).name != name:
        raise ValueError(
            f"name is {name!r}; it must hold {{tract}} and end in {' or '.join(SUFFIXES)}"
        )
    check_format(Path(name).suffix)
