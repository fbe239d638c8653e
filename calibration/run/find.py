"""Where the catalogs of an FGCM run are: the file names of LSST, and of the stand-alone package."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import yaml

from ..tables.files import ENDINGS

__all__ = ["CATALOGS", "OBSERVED", "find_catalogs", "missing_files"]

_TABLES = [suffix for suffixes in ENDINGS.values() for suffix in suffixes]
_CYCLE = r"(?:_Cycle(?P<before>\d+)_)?"
# LSST's butler adds the instrument and the collection to the names of its dataset types; those of
# the fit carry the cycle, before or (in older releases) behind. A stand-alone fit writes
# BASE_cycleNN_zpt.fits, ..._atm.fits and ..._stdstars.fits.
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
    files = sorted(path for path in directory.iterdir() if path.is_file())
    found = {name: _matching(files, name) for name in wanted}
    if cycle is None:
        cycle = max((n for n, _ in found.get("zeropoints", ()) if n is not None), default=None)
    chosen, doubts = {}, []
    for name, matches in found.items():
        if name in _OF_A_CYCLE and any(n is not None for n, _ in matches):
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
    """Return the files whose names fit a catalog, each with its fit cycle; LSST's names first."""
    suffixes = [".ecsv"] if name == "camera" else _TABLES
    ending = "|".join(re.escape(suffix) for suffix in suffixes)
    patterns = _STEMS[name]
    if name in _OF_A_CYCLE:
        patterns = (rf"{patterns[0]}(?P<after>\d*)(_.*)?", rf".+_cycle(?P<after>\d+)_{patterns[1]}")
    for pattern in patterns:
        compiled = re.compile(rf"(?:{pattern})(?:{ending})", re.IGNORECASE)
        found = [(match, path) for path in files if (match := compiled.fullmatch(path.name))]
        if found:
            return [(_cycle(match), path) for match, path in found]
    return []


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
