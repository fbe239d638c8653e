"""The file of an atmosphere table: where it lies, and what is in it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from mapreduce.io.hdu import Hdu, listed, open_hdu, read_table, scan

__all__ = ["ATMOSPHERES", "IMAGES", "STANDARD", "find_atmosphere", "read_atmosphere"]

ATMOSPHERES = "SKYFOLD_ATMOSPHERES"  # environment variable: folders with tables
_SUFFIXES = ("", ".fits", ".fits.gz")
IMAGES = {"oxygen": "O2ATM", "rayleigh": "RAYATM", "ozone": "O3ATM", "water": "PWVATM"}
STANDARD = {
    **{"pmb": "PMBSTD", "pwv": "PWVSTD", "o3": "O3STD", "tau": "TAUSTD"},
    **{"alpha": "ALPHASTD", "secZenith": "AIRMASSSTD"},
}


def find_atmosphere(path_or_name: str | os.PathLike[str], search: Iterable[str | Path]) -> Path:
    """Return the path of a table; see `AtmosphereTable.open`."""
    places = [*map(Path, search), Path()]
    places += [Path(p) for p in os.environ.get(ATMOSPHERES, "").split(os.pathsep) if p]
    package = find_spec("fgcm")
    if package is not None:
        places += [Path(p, "data", "tables") for p in package.submodule_search_locations or ()]
    name = Path(path_or_name)
    for place in dict.fromkeys(places):
        for suffix in _SUFFIXES:
            path = Path(f"{place / name}{suffix}")
            if path.is_file():
                return path
    looked = ", ".join(dict.fromkeys(str((place / name).absolute()) for place in places))
    raise FileNotFoundError(
        f"no atmosphere table {os.fspath(path_or_name)!r}; looked for {looked} (and with .fits, "
        f".fits.gz). Name its folder in `search` or in the environment variable {ATMOSPHERES}"
        + ("" if package else ", or install fgcm")
    )


def read_atmosphere(path: Path) -> dict[str, Any]:
    """Read the fields of an `AtmosphereTable`."""
    hdus = {hdu.name: hdu for hdu in scan(path)}
    missing = [name for name in ("PARS", *IMAGES.values()) if name not in hdus]
    if missing:
        raise ValueError(
            f"{path} is no atmosphere table: it has no extension {', '.join(missing)}; "
            f"there are {listed([*hdus.values()])}"
        )
    parameters = _Parameters(hdus["PARS"])
    standard = {n: c for n, c in STANDARD.items() if c in parameters.names}
    return {
        "wavelengths": parameters.array("ATMLAMBDA"),
        "sec_zenith": parameters.nodes("SECZENITH"),
        "ln_pwv": parameters.log_nodes("PWV"),
        "o3": parameters.nodes("O3"),
        "pmb_elevation": parameters.number("PMBELEVATION"),
        "lambda_norm": parameters.number("LAMBDANORM"),
        "elevation": parameters.number("ELEVATION", math.nan),
        "standard": {name: parameters.number(column) for name, column in standard.items()},
        **{name: _image(hdus[extension]) for name, extension in IMAGES.items()},
    }


class _Parameters:
    """The extension PARS: one row of numbers and grids."""

    def __init__(self, hdu: Hdu) -> None:
        if hdu.facts.get("XTENSION") != "BINTABLE":
            raise ValueError(f"{hdu.where} must be a table")
        rows = read_table(hdu)
        if len(rows) != 1:
            raise ValueError(f"{hdu.where} must have one row, it has {len(rows)}")
        self._where = hdu.where
        self._values = {name.upper(): rows[name][0] for name in rows.dtype.names or ()}
        self.names = self._values.keys()

    def array(self, name: str) -> np.ndarray:
        """Return a column as a (n,) float64 array."""
        if name not in self.names:
            raise ValueError(
                f"{self._where} has no column {name}; there are {', '.join(self.names)}"
            )
        try:
            return np.array(self._values[name], np.float64).reshape(-1)
        except ValueError:
            raise ValueError(f"{self._where}: column {name} does not hold numbers") from None

    def number(self, name: str, default: float | None = None) -> float:
        """Return a column of one number."""
        if default is not None and name not in self.names:
            return default
        array = self.array(name)
        if array.shape != (1,):
            raise ValueError(f"{self._where}: column {name} must hold one number, not {len(array)}")
        return float(array[0])

    def nodes(self, name: str) -> np.ndarray:
        """Return the nodes of a grid, with the one beyond its end."""
        nodes = self.array(name)
        return np.append(nodes, nodes[-1:] + self.number(f"{name}DELTA"))

    def log_nodes(self, name: str) -> np.ndarray:
        """Return the nodes of a logarithmic grid, which older tables hold as plain values."""
        if f"LN{name}" in self.names or name not in self.names:
            return self.nodes(f"LN{name}")
        nodes = self.nodes(name)
        if not (nodes > 0).all():
            raise ValueError(f"{self._where}: the grid {name} must be positive, it is {nodes}")
        return np.log(nodes)


def _image(hdu: Hdu) -> np.ndarray:
    if not hdu.shape:
        raise ValueError(f"{hdu.where} must be an image")
    with open_hdu(hdu) as image:
        return np.asarray(image.data, np.float64)
