"""AtmosphereTable: what the parameters of a visit's atmosphere do to the light.

FGCM describes the atmosphere of a visit by a few numbers (pressure, water vapor, ozone, aerosols,
airmass) and a table, computed once with a radiative-transfer code, that says what they do to the
light (Burke et al. 2018, AJ 155, 41). `AtmosphereTable` reads such a table and turns the numbers of
many visits into transmissions.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from astropy import units as u
from astropy.io import fits
from astropy.table import Row, Table
from scipy.sparse import csr_array

from mapreduce.io.stream import check_free, complete_first
from mapreduce.units import DOBSON, in_unit, number_in

from .file import IMAGES, STANDARD, find_atmosphere, read_atmosphere
from .transmission import TransmissionCurve, ascending, frozen

__all__ = ["AtmosphereTable"]

_BLOCK = 64  # visits at a time: their arrays stay in the cache


class _Rule(NamedTuple):
    """Between which numbers the values of a parameter lie, both excluded."""

    low: float
    high: float
    text: str
    unit: u.UnitBase = u.dimensionless_unscaled


_RULES = {
    "pmb": _Rule(0, np.inf, "a positive pressure in mbar", u.Unit("mbar")),
    "pwv": _Rule(0, np.inf, "a positive amount of water in mm", u.mm),
    "o3": _Rule(0, np.inf, "a positive amount of ozone in Dobson units", DOBSON),
    "tau": _Rule(np.nextafter(0, -1), np.inf, "an optical depth of 0 or more"),
    "alpha": _Rule(-10, 10, "an exponent between -10 and 10"),
    "secZenith": _Rule(1 - 1e-6, np.inf, "1 or more"),  # it may be rounded
    "cTrans": _Rule(-1, 1, "a slope between -1 and 1"),
    "lamStd": _Rule(0, np.inf, "a positive wavelength in Angstrom", u.AA),
}
_UNITS = {  # of the parts of a table
    "wavelengths": u.AA,
    "o3": DOBSON,
    "pmb_elevation": u.Unit("mbar"),
    "lambda_norm": u.AA,
}
_SECZ = [*_RULES].index("secZenith")
_LOW, _HIGH = (np.array([[rule[i]] for rule in _RULES.values()]) for i in (0, 1))


@dataclass(frozen=True, eq=False)
class AtmosphereTable:
    """Transmissions of the atmosphere's constituents on grids of airmass, water and ozone.

    All arrays are kept as read-only float64. The last node of each grid is there for derivatives
    only: parameters are clipped to the range from the first to the last but one.

    Parameters
    ----------
    wavelengths : (n,) array
        Angstrom, ascending.
    sec_zenith, ln_pwv, o3 : (nz,), (nw,) and (no,) arrays
        Nodes of the secant of the zenith angle, of the logarithm of the precipitable water (mm)
        and of the ozone (Dobson units), ascending.
    oxygen, rayleigh : (nz, n) arrays
        Transmissions, 0 to 1.
    ozone : (no, nz, n) array
    water : (nw, nz, n) array
    pmb_elevation : float
        Pressure of the site's elevation for which the table was computed, mbar.
    lambda_norm : float
        Wavelength of the aerosol optical depth ``tau``, Angstrom.
    elevation : float, optional
        Elevation of the site, m; for information only.
    standard : mapping of str to float, optional
        The standard atmosphere: parameters as `interpolate` takes them.
    where : str, optional
        The file, for messages.

    Raises
    ------
    ValueError
        If an array has the wrong shape, is not ascending where it must be, or holds values that
        are no transmissions.

    Examples
    --------
    Air without color, that lets 90% through at the zenith and 80% at two airmasses:

    >>> wavelengths = [4000.0, 6000.0, 8000.0]
    >>> clear = np.ones((3, 3, 3))
    >>> gray = np.repeat([[0.9], [0.8], [0.7]], 3, axis=1)
    >>> nodes = {"sec_zenith": [1, 2, 3], "ln_pwv": [0, 1, 2], "o3": [200, 300, 400]}
    >>> table = AtmosphereTable(
    ...     wavelengths,
    ...     **nodes,
    ...     oxygen=clear[0],
    ...     rayleigh=gray,
    ...     ozone=clear,
    ...     water=clear,
    ...     pmb_elevation=750.0,
    ...     lambda_norm=7750.0,
    ... )
    >>> visits = {"pmb": 750, "pwv": 2, "o3": 250, "tau": 0, "alpha": 1, "secZenith": [1, 1.5]}
    >>> table.interpolate(visits).round(6)
    array([[0.9 , 0.9 , 0.9 ],
           [0.85, 0.85, 0.85]])
    """

    wavelengths: np.ndarray
    sec_zenith: np.ndarray
    ln_pwv: np.ndarray
    o3: np.ndarray
    oxygen: np.ndarray
    rayleigh: np.ndarray
    ozone: np.ndarray
    water: np.ndarray
    pmb_elevation: float
    lambda_norm: float
    elevation: float = math.nan
    standard: Mapping[str, float] | None = None
    where: str = "atmosphere table"

    def __post_init__(self) -> None:
        where, sizes = self.where, {}
        for name, least in (("wavelengths", 2), ("sec_zenith", 3), ("ln_pwv", 3), ("o3", 3)):
            unit = _UNITS.get(name, u.dimensionless_unscaled)
            array = frozen(getattr(self, name), f"{where}: {name}", unit)
            sizes[name] = len(ascending(array, f"{where}: {name}", least))
            object.__setattr__(self, name, array)
        shape = sizes["sec_zenith"], sizes["wavelengths"]
        shapes: dict[str, tuple[int, ...]] = {"oxygen": shape, "rayleigh": shape}
        shapes |= {"ozone": (sizes["o3"], *shape), "water": (sizes["ln_pwv"], *shape)}
        for name, needed in shapes.items():
            array = frozen(getattr(self, name), f"{where}: {name}")
            if array.shape != needed:
                raise ValueError(f"{where}: {name} has the shape {array.shape}, not {needed}")
            if array.min() < 0 or array.max() > 1.001:
                raise ValueError(
                    f"{where}: {name} must be a transmission between 0 and 1, "
                    f"it is {array.min():g} to {array.max():g}"
                )
            object.__setattr__(self, name, array)
        for name in ("pmb_elevation", "lambda_norm"):
            value = number_in(getattr(self, name), _UNITS[name], f"{where}: {name}")
            if not 0 < value < math.inf:
                raise ValueError(f"{where}: {name} must be positive, it is {value}")
            object.__setattr__(self, name, value)
        elevation = number_in(self.elevation, u.m, f"{where}: elevation")
        object.__setattr__(self, "elevation", elevation)
        if self.standard is not None:
            standard = {
                name: number_in(value, _RULES[name].unit, f"{where}: standard {name}")
                for name, value in self.standard.items()
            }
            object.__setattr__(self, "standard", standard)

    # Files

    @classmethod
    def open(
        cls, path_or_name: str | os.PathLike[str], search: str | Path | Iterable[str | Path] = ()
    ) -> AtmosphereTable:
        """Read a table in FGCM's FITS layout, with the columns of either generation.

        The grid of water is LNPWV, or PWV in older tables, which is turned into its logarithm. The
        grids of pressure and aerosols (PMB, LNTAU or TAU, ALPHA) are for FGCM's look-up table;
        transmissions are computed without them, and they are not read.

        Parameters
        ----------
        path_or_name : path or str
            A file, or a name to look for: in the folders of ``search``, in the current one, in
            those of the environment variable ``SKYFOLD_ATMOSPHERES``, and among the tables of an
            installed ``fgcm`` package (which is not imported). The ending ``.fits`` or ``.fits.gz``
            may be left out.
        search : path or iterable of paths
            Folders.

        Raises
        ------
        FileNotFoundError
            If there is no such file; the message says where it was looked for.
        ValueError
            If the file is not FITS, is truncated, or is not such a table.
        """
        path = find_atmosphere(path_or_name, [search] if isinstance(search, str | Path) else search)
        try:
            return cls(**read_atmosphere(path), where=str(path))
        except Exception as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # the system's own: no permission, an unreadable disk
            if str(path) in str(error):
                raise ValueError(str(error)) from error
            # Astropy has many kinds of errors for headers that make no sense.
            raise ValueError(f"{path} is damaged: {type(error).__name__}: {error}") from error

    def write(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the table as `open` reads it; the file appears when it is complete.

        Raises
        ------
        FileExistsError
            If the file exists and ``overwrite`` is false.
        FileNotFoundError
            If there is no such folder.
        """
        path = Path(path)
        check_free(path, overwrite)
        columns: dict[str, float | np.ndarray]
        columns = {"ELEVATION": self.elevation, "PMBELEVATION": self.pmb_elevation}
        standard = self.standard or {}
        columns |= {c: standard[name] for name, c in STANDARD.items() if name in standard}
        columns |= {"LAMBDANORM": self.lambda_norm, "ATMLAMBDA": self.wavelengths}
        axes = {"LNPWV": self.ln_pwv, "O3": self.o3, "SECZENITH": self.sec_zenith}
        for name, axis in axes.items():
            columns |= {name: axis[:-1], f"{name}DELTA": axis[-1] - axis[-2]}
        table = Table({name: np.array([value], float) for name, value in columns.items()})
        images = [fits.ImageHDU(getattr(self, a), name=name) for a, name in IMAGES.items()]
        hdus = [fits.PrimaryHDU(), fits.BinTableHDU(table, name="PARS"), *images]
        with complete_first(path, overwrite) as temporary:
            fits.HDUList(hdus).writeto(temporary)

    def __reduce__(self) -> tuple[object, ...]:
        return AtmosphereTable, tuple(getattr(self, field.name) for field in fields(self))

    def __repr__(self) -> str:
        first, last = self.wavelengths[[0, -1]]
        return (
            f"AtmosphereTable(<{len(self.wavelengths)} wavelengths {first:g} to {last:g} Angstrom>,"
            f" where={self.where!r})"
        )

    # Interpolation

    def interpolate(self, parameters: Any) -> np.ndarray:
        """Compute the transmission for every visit.

        With s the secant of the zenith angle, clipped like ln pwv and o3 to the grid, and q =
        exp(-(pmb - pmb_elevation) / pmb_elevation), which is the scattering by the air above, q^0.6
        being the absorption by it,

            T = q^1.6 O2(s) Rayleigh(s) PWV(ln pwv, s) O3(o3, s)
                (1 + cTrans (l - lamStd) / lamStd) exp(-tau s (l / lambda_norm)^-alpha)

        at the wavelengths l of the table. The four factors are interpolated linearly in each
        variable. The transmission of a visit is the same to the last bit whatever other visits are
        asked for with it.

        Parameters
        ----------
        parameters : Table or mapping
            The columns of FGCM's atmosphere catalog, each a number or an (N,) array: pmb (mbar),
            pwv (mm), o3 (Dobson), tau, alpha, secZenith, cTrans, lamStd (Angstrom). Without cTrans
            it is 0, and lamStd is not needed. Where there is a column ``visit``, messages use it.

        Returns
        -------
        (N, n_wavelengths) float64 array

        Raises
        ------
        KeyError
            If a column is missing.
        ValueError
            If a value is NaN or impossible; the message names parameter, row and visit.
        """
        return self._transmissions(_values(parameters))

    def curve(self, parameters: Any) -> TransmissionCurve:
        """Return the transmission of one visit; parameters as `interpolate` takes them.

        The curve's airmass is secZenith, clipped to the grid.

        Raises
        ------
        ValueError
            If there is not exactly one visit; otherwise as `interpolate`.
        """
        values = _values(parameters)
        if values.shape[1] != 1:
            raise ValueError(f"a curve is of one visit, the parameters are of {values.shape[1]}")
        airmass = _clipped(values[_SECZ], self.sec_zenith)[0]
        return TransmissionCurve(self.wavelengths, self._transmissions(values)[0], airmass)

    @cached_property
    def _nodes(self) -> np.ndarray:
        """Transmissions of the air without water and ozone, of water and of ozone, node by node.

        O2(s) Rayleigh(s), both linear between two nodes, is a parabola there: three Bernstein
        coefficients, of which that in the middle gets a row between those of the nodes.
        """
        o2, rayleigh = self.oxygen[:-1], self.rayleigh[:-1]
        air = np.empty((2 * len(o2) - 1, len(self.wavelengths)))
        air[::2] = o2 * rayleigh
        air[1::2] = (o2[:-1] * rayleigh[1:] + o2[1:] * rayleigh[:-1]) / 2
        rest = (a[:-1, :-1].reshape(-1, len(self.wavelengths)) for a in (self.water, self.ozone))
        return np.concatenate([air, *rest])

    @cached_property
    def _log_ratio(self) -> np.ndarray:
        return np.log(self.wavelengths / self.lambda_norm)

    def _transmissions(self, values: np.ndarray) -> np.ndarray:
        """Return the transmissions of N visits for (8, N) parameters, block by block."""
        out = np.empty((values.shape[1], len(self.wavelengths)))
        at, weights = self._weights(values)
        ends = np.append(np.add.outer(11 * np.arange(_BLOCK), [0, 3, 7]), 11 * _BLOCK)
        for start in range(0, len(out), _BLOCK):
            rows = slice(start, start + _BLOCK)
            block = out[rows]
            n = len(block)
            # A sparse product adds up each row by itself, in the order of its weights, so that no
            # visit depends on the others. BLAS does not promise that.
            sparse = csr_array(
                (weights[rows].ravel(), at[rows].ravel(), ends[: 3 * n + 1].astype(at.dtype)),
                shape=(3 * n, len(self._nodes)),
            )
            parts = (sparse @ self._nodes).reshape(n, 3, -1)
            np.multiply(parts[:, 0], parts[:, 1], out=block)
            block *= parts[:, 2]
            self._dim(block, values[:, rows])
        return out

    def _weights(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return which nodes make up each visit, and their weights: 3 of air, 4 of each other.

        Both are (N, 11); the pressure is in the weights of the air.
        """
        pmb, pwv, o3, _, _, secz, _, _ = values
        nz = len(self.sec_zenith) - 1
        j, s = _bracket(self.sec_zenith, secz)
        at, weights = np.empty((11, len(pmb)), np.int32), np.empty((11, len(pmb)))
        at[:3] = 2 * j, 2 * j + 1, 2 * j + 2
        weights[:3] = (1 - s) ** 2, 2 * s * (1 - s), s**2
        weights[:3] *= np.exp(-1.6 * (pmb - self.pmb_elevation) / self.pmb_elevation)
        first, offset = 3, 2 * nz - 1
        for axis, position in ((self.ln_pwv, np.log(pwv)), (self.o3, o3)):
            k, t = _bracket(axis, position)
            corner = offset + nz * k + j
            at[first : first + 4] = corner, corner + 1, corner + nz, corner + nz + 1
            weights[first : first + 4] = (1 - t) * (1 - s), (1 - t) * s, t * (1 - s), t * s
            first, offset = first + 4, offset + nz * (len(axis) - 1)
        return at.T.copy(), weights.T.copy()

    def _dim(self, block: np.ndarray, values: np.ndarray) -> None:
        """Multiply transmissions by those of the aerosols and of the mirror."""
        _, _, _, tau, alpha, secz, slope, pivot = values
        alphas, which = np.unique(alpha, return_inverse=True)  # in a night, often one
        depth = np.exp(-alphas[:, np.newaxis] * self._log_ratio)[which]
        depth *= (-tau * _clipped(secz, self.sec_zenith))[:, np.newaxis]
        block *= np.exp(depth, out=depth)
        (tilted,) = np.nonzero(slope)
        if tilted.size:
            slope, pivot = slope[tilted, np.newaxis], pivot[tilted, np.newaxis]
            block[tilted] *= 1 + slope * ((self.wavelengths - pivot) / pivot)


# Parameters of visits


def _values(parameters: Any) -> np.ndarray:
    """Return the checked parameters of N visits as (8, N) float64, in the order of ``_RULES``."""
    # Rows and tables of astropy, mappings and data frames have keys(); structured arrays do not.
    keys = parameters.dtype.names if isinstance(parameters, np.ndarray) else parameters.keys()
    if isinstance(parameters, Row):  # whose values have lost their units
        parameters = parameters.table[parameters.index : parameters.index + 1]
    names = {*(keys or ())}
    defaults = {} if "cTrans" in names else {"cTrans": 0.0, "lamStd": 1.0}
    missing = [name for name in _RULES if name not in names and name not in defaults]
    if missing:
        raise KeyError(f"no atmosphere parameter {', '.join(missing)}; there are {sorted(names)}")
    columns = [
        in_unit(parameters[name], rule.unit, name) if name in names else defaults[name]
        for name, rule in _RULES.items()
    ]
    shapes = {np.shape(column) for column in columns} - {()}
    if len(shapes) > 1 or any(len(shape) > 1 for shape in shapes):
        found = ", ".join(f"{n} {np.shape(c)}" for n, c in zip(_RULES, columns, strict=True))
        raise ValueError(f"parameters must be numbers or arrays of one length, they are: {found}")
    values = np.empty((len(_RULES), *(shapes.pop() if shapes else (1,))))
    for row, column in zip(values, columns, strict=True):
        row[:] = column
    good = (values > _LOW) & (values < _HIGH)  # never so for NaN
    if not good.all():
        _complain(values, good, parameters["visit"] if "visit" in names else None)
    return values


def _complain(values: np.ndarray, good: np.ndarray, visits: Any) -> None:
    """Raise the error that names the first of the bad values of the first bad parameter."""
    name, rule, bad, column = next(
        (name, rule, np.flatnonzero(~ok), column)
        for (name, rule), ok, column in zip(_RULES.items(), good, values, strict=True)
        if not ok.all()
    )
    row = int(bad[0])
    visit = "" if visits is None else f" (visit {np.broadcast_to(visits, column.shape)[row]})"
    more = f"; {bad.size - 1} more rows are wrong" if bad.size > 1 else ""
    raise ValueError(f"{name} is {column[row]} in row {row}{visit}, it must be {rule.text}{more}")


def _clipped(values: np.ndarray, nodes: np.ndarray) -> np.ndarray:
    """Clip to the nodes from the first to the last but one."""
    return np.minimum(np.maximum(values, nodes[0]), nodes[-2])


def _bracket(nodes: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the index of the node below each clipped value, and how far it is to the next."""
    values = _clipped(values, nodes)
    lower = np.minimum(np.searchsorted(nodes, values, side="right") - 1, len(nodes) - 3)
    return lower, (values - nodes[lower]) / (nodes[lower + 1] - nodes[lower])
