"""Rows of the tables of a simulated run; `calibration.simulate.columns` declares the columns."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from ..photocalib.flux import AB_MAGNITUDE
from .columns import ATMOSPHERE
from .instrument import BANDS, FILTERS, Instrument
from .survey import OFFSETS, Arrays

__all__ = [
    "atmosphere_rows",
    "lookup_row",
    "passband_rows",
    "reference_rows",
    "star_rows",
    "true_atmosphere_rows",
    "true_zeropoint_rows",
    "visit_rows",
    "zeropoint_rows",
]

Block = Mapping[str, np.ndarray]

_NONE = -9999.0
_NO_MAGNITUDE = 99.0
_LOST = 0.01  # of stars' magnitudes, that the fit has no good observations for
_ONE_ERROR = 0.004  # mag, of a single observation at magnitude 18
_FIRST_REFERENCE = 10**6  # id
_REFERENCE_SHARE = 0.8  # of the stars are in the reference catalog
_REFERENCE_POSITION = 0.03  # arcsec, its errors


def visit_rows(instrument: Instrument, visits: Block, zeropoints: Block) -> Arrays:
    """Return rows of the visit catalog."""
    n, per_detector = len(visits["visit"]), np.ones((1, len(instrument.camera)))
    sigma = visits["psfFwhm"] / math.sqrt(8 * math.log(2)) / instrument.camera.pixel_scale
    return {
        **visits,
        "psfSigma": sigma,
        "psfFwhmDetector": visits["psfFwhm"][:, np.newaxis] * per_detector,
        "deltaAper": np.full(n, _NONE),
        "deltaAperDetector": np.full((n, 1), _NONE) * per_detector,
        "deepFlag": np.zeros(n, np.int32),
        "scaling": zeropoints["scaling"],
        "used": np.ones(n, np.int32),
        "sources_read": np.ones(n, bool),
    }


def zeropoint_rows(
    instrument: Instrument, visits: Block, zeropoints: Block, tilings: np.ndarray
) -> Arrays:
    """Return rows of the zeropoints: all detectors of one visit, of the next, and so on.

    Parameters
    ----------
    instrument : Instrument
    visits, zeropoints : mappings
        As of `draw_visits` and `true_zeropoints` of `calibration.simulate.survey`.
    tilings : (n_filters,) array
        Photometric visits of the run.
    """
    n, n_detectors = visits["missing"].shape
    last = np.array([detector.box[2:] for detector in instrument.camera.values()]) - 1.0
    offset, gray = OFFSETS[visits["filter"], np.newaxis], zeropoints["gray"]
    known = ~visits["missing"]
    values = {
        "fgcmZpt": _true_zpt(zeropoints) - offset,
        "fgcmZptErr": visits["scatter"][:, np.newaxis] / 5,
        "fgcmfZptCheb": zeropoints["zeropoint"].reshape(n, n_detectors, -1)
        * 10 ** (0.4 * offset[..., np.newaxis]),
        "fgcmfZptSstarCheb": zeropoints["superstar"].reshape(n, n_detectors, -1),
        "fgcmR0": zeropoints["i0"] * 10 ** (-0.4 * gray),
        "fgcmR10": zeropoints["i10"],
        "fgcmGry": -gray,
        "fgcmDeltaChrom": zeropoints["deltaChrom"],
        "fgcmZptVar": visits["scatter"][:, np.newaxis] ** 2,
        "fgcmTilings": np.asarray(tilings, float)[visits["filter"], np.newaxis],
        **_focal_plane_gray(gray, known),
    }
    fixed = {
        "visit": visits["visit"][:, np.newaxis],
        "detector": instrument.camera.ids.astype(np.int32),
        "fgcmFlag": np.where(known, np.where(visits["photometric"], 1, 4)[:, np.newaxis], 16),
        "fgcmfZptChebXyMax": last[np.newaxis],
        "fgcmI0": zeropoints["i0"],
        "fgcmI10": zeropoints["i10"],
        "fgcmFlat": _illumination(zeropoints),
        **dict.fromkeys(("fgcmDust", "fgcmAperCorr", "fgcmDeltaMagBkg"), np.zeros(1)),
        "exptime": visits["exptime"][:, np.newaxis],
        "filtername": visits["physicalFilter"][:, np.newaxis],
    }
    rows = {name: _flat(value, n, n_detectors) for name, value in (fixed | values).items()}
    for name in values:
        rows[name][~known.reshape(-1)] = _NONE
    return rows | {"fgcmFlag": rows["fgcmFlag"].astype(np.int32)}


def _flat(values: np.ndarray, n: int, n_detectors: int) -> np.ndarray:
    """Return a row per detector of what may be the same for all visits, or for all detectors."""
    per_row = values.shape[2:]
    values = np.broadcast_to(values, (n, n_detectors, *per_row))
    return values.reshape(n * n_detectors, *per_row).copy()


def _focal_plane_gray(gray: np.ndarray, known: np.ndarray) -> Arrays:
    """Return mean and variance of the gray extinction of each visit, (n, 1) arrays."""
    weights = known / np.maximum(known.sum(axis=1, keepdims=True), 1)
    mean = (weights * gray).sum(axis=1, keepdims=True)
    variance = (weights * (gray - mean) ** 2).sum(axis=1, keepdims=True)
    same = dict.fromkeys(("fgcmFpGry", "fgcmFpGryBlue", "fgcmFpGryRed"), -mean)
    errors = dict.fromkeys(("fgcmFpGryBlueErr", "fgcmFpGryRedErr"), np.zeros_like(mean))
    return {**same, **errors, "fgcmFpVar": variance}


def _illumination(zeropoints: Block) -> np.ndarray:
    """Return the superstar flat at the detectors' centers, mag."""
    c = zeropoints["superstar"]  # T_0, T_1, T_2 are 1, 0, -1 there
    center = c[..., 0, 0] - c[..., 0, 2] - c[..., 2, 0] + c[..., 2, 2]
    return -2.5 * np.log10(center)


def _true_zpt(zeropoints: Block) -> np.ndarray:
    """Return the AB magnitude of 1 adu at the centers, of flat f_nu."""
    return -2.5 * np.log10(zeropoints["zeropoint"][..., 0, 0]) + _illumination(zeropoints)


def true_zeropoint_rows(instrument: Instrument, visits: Block, zeropoints: Block) -> Arrays:
    """Return rows of the true zeropoints, those of visits without a zeropoint among them."""
    n, n_detectors = visits["missing"].shape
    values = {
        "visit": visits["visit"][:, np.newaxis],
        "detector": instrument.camera.ids.astype(np.int32),
        "zpt": _true_zpt(zeropoints),
        "i0": zeropoints["i0"],
        "gray": zeropoints["gray"],
        "illumination": _illumination(zeropoints),
    }
    return {name: _flat(value, n, n_detectors) for name, value in values.items()}


def atmosphere_rows(visits: Block) -> Arrays:
    """Return rows of the atmosphere parameters."""
    return {name: visits[name] for name in ATMOSPHERE}


def true_atmosphere_rows(visits: Block) -> Arrays:
    """Return rows of the true atmosphere and clouds."""
    names = {"gray": "cloud", "grayDx": "cloudDx", "grayDy": "cloudDy", "grayScatter": "scatter"}
    return {**visits, **{name: visits[source] for name, source in names.items()}}


def star_rows(
    stars: Block, good: np.ndarray, total: np.ndarray, rng: np.random.Generator
) -> Arrays:
    """Return rows of the standard stars: those with good observations in any band.

    A magnitude in a hundred is lost. Errors are those of so many observations of a magnitude.

    Parameters
    ----------
    stars : mapping
        As of `calibration.simulate.survey.draw_stars`.
    good, total : (n_stars, n_bands) int arrays
        Observations, in photometric conditions and all.
    rng : numpy.random.Generator
    """
    good = np.where(rng.random(good.shape) < _LOST, 0, good).astype(np.int32)
    mag = stars["mag"]
    with np.errstate(divide="ignore"):
        err = _ONE_ERROR * 10 ** (0.2 * np.maximum(mag - 18, -2)) / np.sqrt(good)
    noise = rng.normal(0, 1, good.shape)
    seen = good > 0
    measured = mag - OFFSETS + noise * np.where(seen, err, 0)
    rows = {
        "id": stars["fgcm_id"],
        "coord_ra": np.radians(stars["ra"]),
        "coord_dec": np.radians(stars["dec"]),
        "isolated_star_id": stars["isolated_star_id"],
        "ngood": good,
        "ntotal": total,
        "mag_std_noabs": np.where(seen, measured, _NO_MAGNITUDE).astype(np.float32),
        "magErr_std": np.where(seen, err, _NO_MAGNITUDE).astype(np.float32),
        "npsfcand": np.zeros_like(good),
        "delta_aper": np.zeros(good.shape, np.float32),
    }
    return {name: values[seen.any(axis=1)] for name, values in rows.items()}


def reference_rows(stars: Block, rng: np.random.Generator) -> Arrays:
    """Return rows of the reference catalog: some of the stars, with true magnitudes and noise."""
    chosen = rng.random(len(stars["ra"])) < _REFERENCE_SHARE
    ra, dec, mag = (stars[name][chosen] for name in ("ra", "dec", "mag"))
    step = rng.normal(0, _REFERENCE_POSITION / 3600, (2, len(ra)))
    rows: Arrays = {"id": _FIRST_REFERENCE + np.arange(len(ra))}
    rows["ra"], rows["dec"] = (ra + step[0] / np.cos(np.radians(dec))) % 360, dec + step[1]
    flux = 10 ** (-0.4 * (mag - AB_MAGNITUDE))
    err = flux * np.hypot(0.003, 0.01 * 10 ** (0.3 * (mag - 18)))
    measured = flux + rng.normal(0, 1, flux.shape) * err
    for i, band in enumerate(BANDS):
        rows[f"{band}_flux"], rows[f"{band}_fluxErr"] = measured[:, i], err[:, i]
    return rows


def lookup_row(instrument: Instrument, tablename: str) -> Arrays:
    """Return the row of the look-up table, without the integrals on its grids."""
    table, curves = instrument.atmosphere, instrument.standard_curves
    wavelengths = instrument.reference_wavelengths
    pairs = zip(curves, wavelengths, strict=True)
    i0, i1, i10 = np.transpose([curve.band_integrals(reference=at) for curve, at in pairs])
    standard, filters = table.standard or {}, ",".join(FILTERS)
    alone = [curve.effective_wavelength() for curve in instrument.filter_curves]
    row = {
        **{"tablename": tablename, "elevation": table.elevation},
        **{"physicalFilters": filters, "stdPhysicalFilters": filters},
        **{"pmbElevation": table.pmb_elevation, "lambdaNorm": table.lambda_norm},
        **{"pwv": np.exp(table.ln_pwv[:-1]), "o3": table.o3[:-1]},
        "zenith": np.degrees(np.arccos(1 / table.sec_zenith[:-1])),
        "nCcd": np.int32(len(instrument.camera)),
        **{f"{name}Std": standard[name] for name in ("pmb", "pwv", "o3", "tau", "alpha")},
        "zenithStd": math.degrees(math.acos(1 / standard["secZenith"])),
        "lambdaRange": table.wavelengths[[0, -1]],
        "lambdaStep": np.diff(table.wavelengths[:2])[0] / 10,
        **{"lambdaStd": wavelengths, "lambdaStdFilter": wavelengths, "lambdaB": alone},
        **{"i0Std": i0, "i1Std": i1, "i10Std": i10},
        "atmLambda": table.wavelengths,
        "atmStdTrans": instrument.standard_atmosphere.throughput,
    }
    return {n: np.array([v.encode() if isinstance(v, str) else v]) for n, v in row.items()}


def passband_rows(instrument: Instrument) -> Arrays:
    """Return rows of the table of passbands: one for each wavelength."""
    rows = {"wavelength": instrument.atmosphere.wavelengths}
    for i, name in enumerate(FILTERS):
        rows[name] = instrument.standard_curves[i].throughput.astype(np.float32)
        rows[f"{name}_DET"] = instrument.passbands(i).T.astype(np.float32)
    return rows
