"""Where the catalogs of an FGCM run are: the file names of LSST, and of the stand-alone package."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import yaml

from ..tables.files import ENDINGS
from ..tables.parts import table_files
from ..texts import listed

__all__ = ["CATALOGS", "OBSERVED", "find_catalogs", "has_tables", "missing_files"]

_TABLES = [suffix for suffixes in ENDINGS.values() for suffix in suffixes]
_CYCLE = r"(?:_Cycle(?P<before>\d+)_)?"
_AFTER = r"(?:(?:-|_?cycle)?(?P<after>\d{1,3}))?(_.*)?"
# LSST's butler adds the instrument and the collection to the names of its dataset types; those of
# the fit carry the cycle, before or (in older releases, Gen2 with a hyphen) behind. A stand-alone
# fit writes BASE_cycleNN_zpt.fits, ..._atm.fits and ..._stdstars.fits.
_STEMS = {
    "visits": (r"fgcmVisitCatalog(_.*)?",),
    "zeropoints": (rf"fgcm{_CYCLE}Zeropoints", "zpt"),
    "atmosphere_parameters": (rf"fgcm{_CYCLE}AtmosphereParameters", "atm"),
    "standard_stars": (rf"fgcm{_CYCLE}StandardStars", "stdstars"),
    "lookup_table": (r"fgcmLookUpTable(_.*)?", r".*_?lut"),
    "camera": (r"camera(_.*)?",),
    "reference_catalog": (r"refcat(_.*)?", r"cal_ref_cat(_.*)?", r"reference_catalog(_.*)?"),
    "star_observations": (r"fgcm_?Star_?Observations(_.*)?",),
    "star_ids": (r"fgcm_?Star_?Ids(_.*)?",),
}
_EXPECTED = {
    "visits": "fgcmVisitCatalog",
    "zeropoints": "fgcmZeropoints",
    "atmosphere_parameters": "fgcmAtmosphereParameters",
    "standard_stars": "fgcmStandardStars",
    "lookup_table": "fgcmLookUpTable",
}
_OF_A_CYCLE = ("zeropoints", "atmosphere_parameters", "standard_stars")
_IN_FIT_CONFIG = {"visits": "exposureFile", "lookup_table": "lutFile"}

OBSERVED = ("star_observations", "star_ids")
"""What a fit starts from, of which nothing is made but reports."""

CATALOGS = tuple(name for name in _STEMS if name not in OBSERVED)
"""What `FgcmRun` calls its parts."""


def find_catalogs(
    directory: str | os.PathLike[str], wanted: Iterable[str], cycle: int | None = None
) -> dict[str, Path]:
    """Find the catalogs of a run by the names of their files.

    Parameters
    ----------
    directory : path
    wanted : iterable of str
        Of `CATALOGS` and `OBSERVED`.
    cycle : int, optional
        The fit cycle, where names have one; default the last of which there are zeropoints.
    """
    directory = Path(directory)
    files = sorted(directory.iterdir())
    found = {name: _matching(files, name) for name in wanted}
    _check_mixture(directory, found, cycle)
    numbered = {name: {n for n, _ in found.get(name, ()) if n is not None} for name in _OF_A_CYCLE}
    cycles = numbered["zeropoints"] or set().union(*numbered.values())
    cycle = max(cycles, default=None) if cycle is None else cycle
    chosen, doubts = {}, []
    for name, matches in found.items():
        if name in _OF_A_CYCLE and any(numbered.values()):
            matches = [match for match in matches if match[0] == cycle]
        if len(matches) > 1:
            names = ", ".join(path.name for _, path in matches)
            doubts.append(f"{names} could each be the {name}; say which: {name}=...")
        elif matches:
            chosen[name] = matches[0][1]
    if doubts:
        raise ValueError(f"{directory}: {'; '.join(doubts)}")
    missing = [name for name in wanted if name not in chosen]
    return chosen | _from_fit_config(files, missing)


def missing_files(directory: Path, names: Iterable[str]) -> dict[str, FileNotFoundError]:
    """Return, for each catalog, the error that it is not in a directory."""
    errors = {}
    for name in names:
        stem = _EXPECTED.get(name)
        lsst = f"{stem}.fits, .fits.gz or .parquet" if stem else "camera.ecsv"
        alone = f", or *_cycleNN_{_STEMS[name][1]}.fits" if name in _OF_A_CYCLE else ""
        errors[name] = FileNotFoundError(
            f"{directory} has no {name}: there is no {lsst}{alone}; say where: {name}=..., or None"
        )
    return errors


def _matching(files: Iterable[Path], name: str) -> list[tuple[int | None, Path]]:
    """Return the files and directories of parts whose names fit a catalog, with their fit cycles.

    Those that a fit cycle writes by any name, which are not to be mixed; of others LSST's first.
    """
    suffixes = [".ecsv"] if name == "camera" else _TABLES
    ending = "|".join(re.escape(suffix) for suffix in suffixes)
    patterns = _STEMS[name]
    if name in _OF_A_CYCLE:
        patterns = (rf"{patterns[0]}{_AFTER}", rf".+_cycle(?P<after>\d+)_{patterns[1]}")
    every: list[tuple[int | None, Path]] = []
    for pattern in patterns:
        compiled = re.compile(rf"(?:{pattern})(?:{ending})", re.IGNORECASE)
        matches = ((compiled.fullmatch(_whole_name(path)), path) for path in files)
        found = [(_cycle(match), path) for match, path in matches if match and _is_one(path)]
        if found and name not in _OF_A_CYCLE:
            return found
        every += found
    return every


def _whole_name(path: Path) -> str:
    """Return a file's name; that of a directory of parts as if it were a file."""
    known = path.name.lower().endswith(tuple(_TABLES))
    return path.name if known or not path.is_dir() else f"{path.name}{_TABLES[0]}"


def _is_one(path: Path) -> bool:
    return path.is_file() or has_tables(path)


def has_tables(path: Path) -> bool:
    """Whether there are tables in a directory."""
    try:
        return bool(table_files(path))
    except FileNotFoundError:
        return False


def _check_mixture(
    directory: Path, found: Mapping[str, list[tuple[int | None, Path]]], cycle: int | None
) -> None:
    """Refuse files of fit cycles beside those that do not say theirs, unless a cycle was named."""
    matches = [match for name in _OF_A_CYCLE for match in found.get(name, ())]
    plain = [path.name for number, path in matches if number is None]
    numbered = sorted({number for number, _ in matches if number is not None})
    if cycle is None and plain and numbered:
        example = next(path.name for number, path in matches if number == numbered[-1])
        raise ValueError(
            f"{directory} has {', '.join(plain)}, which say no fit cycle, beside files of "
            f"{listed(numbered, noun='cycle')}, such as {example}; say which are meant: "
            f"cycle={numbered[-1]}, or {', '.join(f'{n}=...' for n in _OF_A_CYCLE if n in found)}"
        )


def _cycle(match: re.Match[str]) -> int | None:
    digits = [match.groupdict().get(key) for key in ("before", "after")]
    return next((int(d) for d in digits if d), None)


def _from_fit_config(files: Iterable[Path], names: Iterable[str]) -> dict[str, Path]:
    """Return what the configuration of a stand-alone fit names: visits and look-up table."""
    keys = {name: _IN_FIT_CONFIG[name] for name in names if name in _IN_FIT_CONFIG}
    found: dict[str, Path] = {}
    for path in files if keys else ():
        if path.suffix not in (".yml", ".yaml", ".json"):
            continue
        try:
            config = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError):
            continue
        for name, key in keys.items() if isinstance(config, Mapping) else ():
            if (value := config.get(key)) and (path.parent / str(value)).is_file():
                found[name] = path.parent / str(value)
    return found
