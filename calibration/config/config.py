"""ProductsConfig: what is made of an FGCM run, and how; from Python, YAML, TOML or `key=value`."""

from __future__ import annotations

import dataclasses
import os
import tomllib
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
import yaml

from mapreduce.units import in_unit

from . import options

__all__ = ["ColorTerm", "ProductsConfig"]


@dataclass(frozen=True, kw_only=True)
class ColorTerm:
    """How magnitudes of the reference catalog are carried into a standard band.

    ``p' = p + c0 + c1 (p - s) + c2 (p - s)**2``, with the magnitudes p and s of the reference star
    in the primary and secondary band.

    Parameters
    ----------
    primary, secondary : str
        Bands of the reference catalog.
    c0 : float
        mag.
    c1, c2 : float
        Coefficients of the color (mag) and its square.

    Raises
    ------
    TypeError
        If a band is not a text, or a coefficient not a number.
    ValueError
        If a coefficient is not finite.

    Examples
    --------
    >>> ColorTerm(primary="g", secondary="r", c1=0.1).apply([20.0], [19.0])
    array([20.1])
    """

    primary: str
    secondary: str
    c0: float = 0.0
    c1: float = 0.0
    c2: float = 0.0

    def __post_init__(self) -> None:
        for name in ("primary", "secondary"):
            options.text(name, getattr(self, name))
        for name, unit in (("c0", u.mag), ("c1", u.dimensionless_unscaled), ("c2", 1 / u.mag)):
            object.__setattr__(self, name, options.number(name, getattr(self, name), unit=unit))

    def apply(self, primary: Any, secondary: Any) -> Any:
        """Return magnitudes in the standard band.

        Parameters
        ----------
        primary, secondary : array_like
            AB magnitudes of the reference stars in the two bands.
        """
        primary, secondary = (
            in_unit(values, u.ABmag, name)
            for name, values in {"primary": primary, "secondary": secondary}.items()
        )
        color = np.subtract(primary, secondary)
        return np.add(primary, self.c0) + color * (self.c1 + self.c2 * color)


@dataclass(frozen=True, kw_only=True)
class ProductsConfig:
    """What is made of an FGCM run, and how.

    Parameters
    ----------
    physical_filter_map : mapping of str to str
        Band of each physical filter; needed for reference calibration.
    reference_calibration : bool
        Whether to tie the magnitudes to a reference catalog, by one offset per band.
    atmosphere_output, zeropoint_output, tract_stars : bool
        Whether to make transmission curves, photoCalibs, and stars by tract.
    compose_wcs_jacobian : bool
        Whether photoCalibs include the relative area of the pixels.
    apply_mean_chromatic_correction : bool
        Whether photoCalibs include the mean chromatic correction, ``fgcmDeltaChrom``.
    reference_pixelization_nside : int
        HEALPix resolution of the pixels in which offsets are measured; a power of two.
    reference_pixelization_min_stars : int
        Stars that a pixel must hold.
    reference_pixelization_n_pixels : int
        Pixels used at most, a random sample if there are more.
    reference_min_match : int
        Matched stars that a pixel must have to count for a band.
    reference_match_radius : float
        arcsec.
    reference_min_signal_to_noise, star_min_signal_to_noise : float
        Of the stars of the reference catalog and of the standard stars that are matched.
    reference_flux, reference_flux_error : str
        Columns of the reference catalog, ``{band}`` in place of the band.
    reference_unit : str or None
        Of these columns, where the catalog does not say it: one of fluxes, such as "uJy", or "AB"
        for AB magnitudes. None for nJy, or what the catalog says.
    magnitude_error_floor : float
        mag, added in quadrature to the errors of matched stars.
    color_terms : mapping of str to ColorTerm
        By standard band; a mapping of a term's fields is taken, too. A band without one is compared
        with the band of the same name.
    cycle_number : int or None
        The fit cycle whose catalogs are read; None for the last there is.
    atmosphere_table : str or None
        Name or path of the atmosphere table; None for the one that the look-up table names.
    sky_map : {"rings", "healpix"}
        How stars are divided into tracts.
    sky_map_num_rings : int
        Rings of declination between the polar caps.
    sky_map_ra_start : float
        deg; where the first tract of each ring is centered.
    sky_map_nside : int
        HEALPix resolution of the tracts; a power of two.
    seed : int
        Of the random sample of pixels.
    output_format : {"fits", "parquet"}
        Of the files that are written.

    Raises
    ------
    TypeError
        If a field is unknown, or a value of the wrong type.
    ValueError
        If a value is out of range.

    Examples
    --------
    >>> config = ProductsConfig(seed=3)
    >>> config.replace(reference_calibration=True).reference_calibration
    True
    >>> config.with_overrides(["seed=5", "physical_filter_map.SIM-I2=i"]).physical_filter_map
    {'SIM-I2': 'i'}
    >>> config.with_overrides(["sed=5"])
    Traceback (most recent call last):
    ...
    TypeError: there is no field sed; did you mean seed?
    """

    physical_filter_map: Mapping[str, str] = field(default_factory=dict, hash=False)
    reference_calibration: bool = False
    atmosphere_output: bool = True
    zeropoint_output: bool = True
    tract_stars: bool = True
    compose_wcs_jacobian: bool = True
    apply_mean_chromatic_correction: bool = True
    reference_pixelization_nside: int = 64
    reference_pixelization_min_stars: int = 200
    reference_pixelization_n_pixels: int = 100
    reference_min_match: int = 50
    reference_match_radius: float = 0.25
    reference_min_signal_to_noise: float = 10.0
    star_min_signal_to_noise: float = 10.0
    reference_flux: str = "{band}_flux"
    reference_flux_error: str = "{band}_fluxErr"
    reference_unit: str | None = None
    magnitude_error_floor: float = 0.003
    color_terms: Mapping[str, ColorTerm] = field(default_factory=dict, hash=False)
    cycle_number: int | None = None
    atmosphere_table: str | None = None
    sky_map: str = "rings"
    sky_map_num_rings: int = 120
    sky_map_ra_start: float = 0.0
    sky_map_nside: int = 8
    seed: int = 0
    output_format: str = "fits"

    def __new__(cls, **values: Any) -> ProductsConfig:  # noqa: D102
        options.known(values, cls)
        return super().__new__(cls)

    def __post_init__(self) -> None:
        for name, check in _CHECKS.items():
            object.__setattr__(self, name, check(name, getattr(self, name)))

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> ProductsConfig:
        """Read a configuration from a YAML (``.yaml``, ``.yml``) or TOML (``.toml``) file.

        Fields that the file does not have get their defaults.

        Raises
        ------
        OSError
            If the file cannot be read.
        TypeError, ValueError
            As the constructor; or if the file is not of one of these formats.
        """
        path = Path(path)
        if path.suffix not in _READERS:
            raise ValueError(f"{path}: a configuration ends in {', '.join(_READERS)}")
        data = path.read_bytes()
        try:
            values = _READERS[path.suffix](data.decode("utf-8"))
        except (yaml.YAMLError, ValueError, RecursionError) as error:  # YAML knows dates, too
            raise ValueError(f"{path} is not valid {path.suffix[1:].upper()}: {error}") from error
        if not isinstance(values, Mapping | None):
            raise ValueError(f"{path} holds {values!r:.60}; a configuration is fields and values")
        try:
            return cls.from_dict(values or {}, where=str(path))
        except (TypeError, ValueError) as error:
            raise type(error)(f"{path}: {error}") from None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, where: str) -> ProductsConfig:
        """Make one of the fields and values of a file; the inverse of `to_dict`.

        Parameters
        ----------
        values : mapping
            By the names of fields, or those that they had once.
        where : str
            The file, as messages name it.

        Raises
        ------
        TypeError, ValueError
            As the constructor; or if a field is there by both names.

        Warns
        -----
        FutureWarning
            If a field goes by its old name.
        """
        values = {str(name): value for name, value in values.items()}
        for old, new in _OLD_NAMES.items():
            if old not in values:
                continue
            if new in values:
                raise ValueError(f"there are both {new} and {old}, its old name; keep {new}")
            warnings.warn(
                f"{where}: {old} is now called {new}; rename it", FutureWarning, stacklevel=2
            )
            values[new] = values.pop(old)
        return cls(**values)

    def replace(self, **values: Any) -> ProductsConfig:
        """Return a copy with some fields changed.

        Raises
        ------
        TypeError, ValueError
            As the constructor.
        """
        options.known(values, type(self))
        return dataclasses.replace(self, **values)

    def with_overrides(self, overrides: Iterable[str]) -> ProductsConfig:
        """Return a copy with fields changed by texts, as a command line gives them.

        Parameters
        ----------
        overrides : iterable of str
            ``field=value``, the value in YAML; or ``field.key=value`` for one entry of a mapping.

        Raises
        ------
        TypeError, ValueError
            As the constructor; or if a text is not of this form.

        Examples
        --------
        >>> texts = ["color_terms.g={primary: g, secondary: i, c1: 0.02}", "tract_stars=no"]
        >>> ProductsConfig().with_overrides(texts).color_terms["g"].secondary
        'i'
        """
        values: dict[str, Any] = {}
        for text in overrides:
            name, equals, value = text.partition("=")
            name, dot, key = name.strip().partition(".")
            if not equals or not name:
                raise ValueError(f"{text!r} is not of the form field=value")
            options.known([name], type(self))
            try:
                parsed = yaml.safe_load(value)
            except yaml.YAMLError as error:
                raise ValueError(f"the value of {text!r} is not valid YAML: {error}") from error
            if dot:
                whole = values.get(name, getattr(self, name))
                if not isinstance(whole, Mapping):
                    raise ValueError(f"{name} has no entries, so there is no {name}.{key}")
                parsed = {**whole, key: parsed}
            values[name] = parsed
        return self.replace(**values)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain numbers, texts and dicts, which YAML and JSON can hold."""
        return dataclasses.asdict(self)

    def to_yaml(self) -> str:
        """Return the text of a file that `open` reads.

        Examples
        --------
        >>> print(ProductsConfig().to_yaml().splitlines()[0])
        physical_filter_map: {}
        """
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)

    def band(self, physical_filter: str) -> str:
        """Return the band of a physical filter.

        Raises
        ------
        KeyError
            If ``physical_filter_map`` does not have it.
        """
        try:
            return self.physical_filter_map[physical_filter]
        except KeyError:
            known = ", ".join(self.physical_filter_map) or "none"
            raise KeyError(
                f"physical filter {physical_filter!r} is not in physical_filter_map; there: {known}"
            ) from None


def _color_term(name: str, value: Any) -> ColorTerm:
    if isinstance(value, ColorTerm):
        return value
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} is a mapping with primary, secondary, c0, c1, c2, got {value!r}")
    try:
        options.known(value, ColorTerm)
        return ColorTerm(**value)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}: {error}") from None


_CHECKS: dict[str, options.Check] = {
    "physical_filter_map": options.mapping(options.text),
    "reference_calibration": options.flag,
    "atmosphere_output": options.flag,
    "zeropoint_output": options.flag,
    "tract_stars": options.flag,
    "compose_wcs_jacobian": options.flag,
    "apply_mean_chromatic_correction": options.flag,
    "reference_pixelization_nside": options.nside,
    "reference_pixelization_min_stars": options.count(1),
    "reference_pixelization_n_pixels": options.count(1),
    "reference_min_match": options.count(1),
    "reference_match_radius": options.at_least(0, above=True, unit=u.arcsec),
    "reference_min_signal_to_noise": options.at_least(0),
    "star_min_signal_to_noise": options.at_least(0),
    "reference_flux": options.text,
    "reference_flux_error": options.text,
    "reference_unit": options.optional(options.text),
    "magnitude_error_floor": options.at_least(0, unit=u.mag),
    "color_terms": options.mapping(_color_term),
    "cycle_number": options.optional(options.count(0)),
    "atmosphere_table": options.optional(options.text),
    "sky_map": options.choice("rings", "healpix"),
    "sky_map_num_rings": options.count(1),
    "sky_map_ra_start": partial(options.number, unit=u.deg),
    "sky_map_nside": options.nside,
    "seed": options.count(0),
    "output_format": options.choice("fits", "parquet"),
}
_OLD_NAMES = {"colour_terms": "color_terms"}  # of fields, in files
_READERS: dict[str, Callable[[str], Any]] = {
    ".yaml": yaml.safe_load,
    ".yml": yaml.safe_load,
    ".toml": tomllib.loads,
}
