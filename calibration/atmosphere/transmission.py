"""TransmissionCurve: a throughput that depends on wavelength, and its integrals over a band."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from astropy import units as u
from astropy.table import Table
from numpy.typing import ArrayLike
from scipy.integrate import simpson

from mapreduce.units import in_unit, number_in

from ..tables.fields import as_table, fields_like

__all__ = [
    "BandIntegrals",
    "TransmissionCurve",
    "ascending",
    "band_integrals",
    "frozen",
]

_COLUMNS = {
    "wavelength": ("Angstrom", "wavelength"),
    "throughput": ("", "fraction of the light that gets through"),
    "airmass": ("", "airmass that the curve is of"),
}
_STEP = 5.0  # Angstrom, of integrals
_ENDS = 1 - 1e-12, 1 + 1e-12  # of a range, which converted wavelengths miss by rounding
_ONE = u.dimensionless_unscaled


@dataclass(frozen=True, eq=False)
class TransmissionCurve:
    """A throughput that depends on wavelength: of an atmosphere, a passband, or both.

    Linear between its wavelengths; outside of them it keeps its end values. Curves can be
    multiplied with each other (see `times`) and with numbers, and compared with ``==``.

    Parameters
    ----------
    wavelengths : (n,) array
        Angstrom, or what a Quantity or Column says; ascending. Kept as read-only float64, like the
        throughput.
    throughput : (n,) array
        Fraction of the light that gets through; per cent where it says so.
    airmass : float, optional
        Airmass that the light came through; None for a passband.

    Raises
    ------
    ValueError
        If the arrays are not (n,) of finite numbers, n at least 2, the wavelengths not positive
        and ascending, or the airmass is not positive.

    Examples
    --------
    >>> curve = TransmissionCurve([4000, 6000, 8000], [0.8, 0.9, 1.0], airmass=1.0)
    >>> curve.sample([3000, 5000, 9000]), curve.sample([0.3, 0.5] * u.um, outside=np.nan)
    (array([0.8 , 0.85, 1.  ]), array([ nan, 0.85]))
    >>> curve.at_airmass(2.0).throughput
    array([0.64, 0.81, 1.  ])
    >>> (curve * TransmissionCurve([5000, 6000], [0, 1])).throughput
    array([0. , 0. , 0.9, 1. ])
    """

    wavelengths: np.ndarray
    throughput: np.ndarray
    airmass: float | None = None

    def __post_init__(self) -> None:
        wavelengths = frozen(self.wavelengths, "wavelengths", u.AA)
        throughput = frozen(self.throughput, "throughput")
        if not ascending(wavelengths, "wavelengths", 2)[0] > 0:
            raise ValueError(f"wavelengths must be positive, the first is {wavelengths[0]}")
        if throughput.shape != wavelengths.shape:
            raise ValueError(
                f"throughput has the shape {throughput.shape}, wavelengths {wavelengths.shape}; "
                "they must be the same"
            )
        object.__setattr__(self, "wavelengths", wavelengths)
        object.__setattr__(self, "throughput", throughput)
        if self.airmass is not None:
            object.__setattr__(self, "airmass", _positive_airmass(self.airmass))

    def sample(self, wavelengths: ArrayLike, *, outside: float | None = None) -> np.ndarray:
        """Return the throughput at other wavelengths, in float64 of their shape.

        Parameters
        ----------
        wavelengths : array_like
            Angstrom, or what a Quantity or Column says.
        outside : float, optional
            The throughput outside of the curve's range, such as NaN; default its end values, as
            LSST's curves have it.
        """
        at = in_unit(wavelengths, u.AA, "wavelengths")
        sampled = np.interp(at, self.wavelengths, self.throughput)
        if outside is None:
            return sampled
        first, last = self.wavelengths[[0, -1]] * _ENDS
        beyond = (at < first) | (at > last)
        return np.where(beyond, number_in(outside, _ONE, "outside"), sampled)[()]

    def times(
        self, other: TransmissionCurve, wavelengths: ArrayLike | None = None
    ) -> TransmissionCurve:
        """Return the product with another curve, as of an atmosphere and a passband.

        Parameters
        ----------
        other : TransmissionCurve
        wavelengths : (m,) array, optional
            Where to sample the product, Angstrom; default all wavelengths of both, at which it is
            exact.

        Returns
        -------
        TransmissionCurve
            Without an airmass: that of one factor does not scale the other.
        """
        if wavelengths is not None:
            wavelengths = in_unit(wavelengths, u.AA, "wavelengths")
        else:
            wavelengths = self.wavelengths
            if not np.array_equal(wavelengths, other.wavelengths):
                wavelengths = np.union1d(wavelengths, other.wavelengths)
        throughput = self.sample(wavelengths) * other.sample(wavelengths)
        return TransmissionCurve(wavelengths, throughput)

    def __mul__(self, other: object) -> TransmissionCurve:
        if isinstance(other, TransmissionCurve):
            return self.times(other)
        if isinstance(other, Real):
            return TransmissionCurve(self.wavelengths, self.throughput * float(other))
        return NotImplemented

    __rmul__ = __mul__
    __array_ufunc__ = None  # so that a NumPy number * curve comes to __rmul__

    def at_airmass(self, airmass: float) -> TransmissionCurve:
        """Return the curve through another airmass, by Beer and Lambert: T**(airmass / own).

        Right where extinction is proportional to the path: scattering by air and aerosols, ozone.
        Lines of water and oxygen within a resolution element are saturated, and grow more slowly,
        rather with the square root of the path in strong bands: there the extrapolation overstates
        what the airmass changes. Gray factors of the curve, such as a pressure correction or a
        mirror, are scaled too, although they do not depend on the airmass. For a step that matters,
        interpolate the `AtmosphereTable` at the other secZenith.

        Raises
        ------
        ValueError
            If the airmass is not positive, the curve has none, or its throughput is negative
            somewhere.
        """
        airmass = _positive_airmass(airmass)
        if self.airmass is None:
            raise ValueError(
                "a curve without an airmass cannot be scaled to another; scale the atmosphere "
                "before it is multiplied with a passband"
            )
        if self.throughput.min() < 0:
            raise ValueError(f"the throughput is negative: at least {self.throughput.min():g}")
        scaled = self.throughput ** (airmass / self.airmass)
        return TransmissionCurve(self.wavelengths, scaled, airmass)

    # Integrals

    def band_integral(self, passband: TransmissionCurve | None = None) -> float:
        """Return I0, the integral of S dl / l, with S the product of the curve and a passband.

        -2.5 log10 of the ratio of two such integrals is how much fainter a source of flat f_nu
        looks through one than through the other. How it is computed: see `band_integrals`.
        """
        return float(band_integrals(*self._in_steps(passband), reference=0.0).i0)

    def band_integrals(
        self, passband: TransmissionCurve | None = None, *, reference: float
    ) -> BandIntegrals:
        """Return FGCM's I0, I1 and I10 of the product of the curve and a passband.

        The integrals are over the passband's wavelengths, by Simpson's rule in equal steps of 5
        Angstrom, as FGCM's own, or less where one of the curves is given in smaller ones.

        Parameters
        ----------
        passband : TransmissionCurve, optional
            Default none: the curve already is a product.
        reference : float
            Wavelength l_b of the band, Angstrom; FGCM's is ``lambdaStd`` of the look-up table.

        Examples
        --------
        >>> passband = TransmissionCurve([4000, 5000, 6000], [0, 1, 0])
        >>> sloped = TransmissionCurve([3000, 9000], [0.4, 1])
        >>> round(sloped.band_integrals(passband, reference=5000).i10, 3)
        -5.64
        """
        i0, i1, i10 = band_integrals(*self._in_steps(passband), reference)
        return BandIntegrals(float(i0), float(i1), float(i10))

    def effective_wavelength(self, passband: TransmissionCurve | None = None) -> float:
        """Return the photon-weighted mean wavelength: the integral of S dl over that of S dl / l.

        That of the photons of a source of flat f_nu, in Angstrom. FGCM's ``lambdaStd`` is that of
        the standard passband with the standard atmosphere, ``lambdaB`` that of the bare passband.
        """
        return float(band_integrals(*self._in_steps(passband), reference=0.0).i10)

    def _in_steps(self, passband: TransmissionCurve | None) -> tuple[np.ndarray, np.ndarray]:
        """Return equal steps over the passband, an even number of them, and the product there."""
        curves = [self] if passband is None else [self, passband]
        first, last = curves[-1].wavelengths[[0, -1]]
        step = min(_STEP, *(np.median(np.diff(curve.wavelengths)) for curve in curves))
        wavelengths = np.linspace(first, last, 2 * math.ceil((last - first) / (2 * step)) + 1)
        return wavelengths, np.prod([curve.sample(wavelengths) for curve in curves], axis=0)

    # Tables

    def to_table(self) -> Table:
        """Return the curve as a table: wavelength (Angstrom), throughput, and airmass, if known."""
        columns = {"wavelength": self.wavelengths, "throughput": self.throughput}
        if self.airmass is not None:
            columns["airmass"] = np.full(len(self.wavelengths), float(self.airmass))
        texts = {name: _COLUMNS[name] for name in columns}
        meta = {} if self.airmass is None else {"airmass": self.airmass}
        return as_table(columns, fields_like(columns, texts), meta)

    @classmethod
    def from_table(cls, table: Table) -> TransmissionCurve:
        """Return the curve that a table holds.

        Parameters
        ----------
        table : Table
            With columns wavelength, in any unit of length, by default Angstrom, and throughput, a
            fraction or in per cent; and the airmass, in a column or in the meta data.

        Raises
        ------
        KeyError
            If a column is missing.
        """
        missing = {"wavelength", "throughput"} - {*table.colnames}
        if missing:
            raise KeyError(f"no column {', '.join(sorted(missing))}; there are {table.colnames}")
        airmass = table.meta.get("airmass", table.meta.get("AIRMASS"))
        if "airmass" in table.colnames and len(table):
            airmass = in_unit(table["airmass"], _ONE, "airmass")[0]
        wavelengths = in_unit(table["wavelength"], u.AA, "wavelength")
        return cls(wavelengths, table["throughput"], airmass)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TransmissionCurve):
            return NotImplemented
        return self.airmass == other.airmass and all(
            np.array_equal(getattr(self, name), getattr(other, name))
            for name in ("wavelengths", "throughput")
        )

    def __hash__(self) -> int:
        return hash((self.wavelengths.tobytes(), self.throughput.tobytes(), self.airmass))

    def __reduce__(self) -> tuple[object, ...]:
        return TransmissionCurve, (self.wavelengths, self.throughput, self.airmass)

    def __repr__(self) -> str:
        first, last = self.wavelengths[[0, -1]]
        airmass = "" if self.airmass is None else f", airmass={self.airmass:g}"
        return (
            f"TransmissionCurve(<{len(self.wavelengths)} wavelengths "
            f"{first:g} to {last:g} Angstrom>{airmass})"
        )


class BandIntegrals(NamedTuple):
    """FGCM's integrals over a band: I0 and I1 (Angstrom), and I10 = I1 / I0 (Angstrom)."""

    i0: Any
    i1: Any
    i10: Any


def band_integrals(
    wavelengths: np.ndarray, throughput: np.ndarray, reference: float
) -> BandIntegrals:
    """Compute FGCM's band integrals of any number of passbands at once.

    I0 is the integral of S dl / l, I1 that of S (l - l_b) dl / l, and I10 = I1 / I0: what a band
    passes of a flat spectrum f_nu, and of one with a slope (Burke et al. 2018, AJ 155, 41). They
    are sums by Simpson's rule, as FGCM's own.

    Parameters
    ----------
    wavelengths : (n,) array
        Angstrom, ascending, in equal or nearly equal steps.
    throughput : (..., n) array
        S, of atmosphere and instrument together.
    reference : float
        l_b, Angstrom.

    Returns
    -------
    BandIntegrals
        Of (...) float64 arrays; I10 is NaN where I0 is 0.

    Examples
    --------
    >>> i0, i1, i10 = band_integrals(np.linspace(4000, 5000, 11), np.ones((3, 11)), 4500.0)
    >>> i0.round(6), (np.exp(i0) * 4000).round(3)
    (array([0.223144, 0.223144, 0.223144]), array([5000., 5000., 5000.]))
    """
    wavelengths = in_unit(wavelengths, u.AA, "wavelengths")
    reference = number_in(reference, u.AA, "reference")
    density = in_unit(throughput, _ONE, "throughput") / wavelengths
    i0 = simpson(density, x=wavelengths)
    i1 = simpson(density * (wavelengths - reference), x=wavelengths)
    i10 = np.divide(i1, i0, out=np.full_like(i0, np.nan), where=i0 != 0)
    return BandIntegrals(i0, i1, i10)


# Arrays


def frozen(values: Any, what: str, unit: u.UnitBase = _ONE) -> np.ndarray:
    """Return a read-only float64 array in a unit, checked; a copy unless it is that already."""
    array = in_unit(values, unit, what)
    if array.flags.writeable:
        array = array.copy()
        array.flags.writeable = False
    if not np.isfinite(array).all():
        bad = np.argwhere(~np.isfinite(array))
        raise ValueError(
            f"{what} must be finite; {len(bad)} values are not, one at {bad[0].tolist()}"
        )
    return array


def ascending(array: np.ndarray, what: str, least: int) -> np.ndarray:
    """Return an array, checked."""
    if array.ndim != 1 or len(array) < least:
        raise ValueError(f"{what} must be a list of at least {least}, it has shape {array.shape}")
    if not (np.diff(array) > 0).all():
        raise ValueError(f"{what} must be ascending")
    return array


def _positive_airmass(airmass: float) -> float:
    airmass = number_in(airmass, _ONE, "airmass")
    if not 0 < airmass < math.inf:
        raise ValueError(f"an airmass must be a positive number, got {airmass}")
    return airmass
