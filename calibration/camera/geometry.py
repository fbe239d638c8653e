"""Where detectors come from: a table of the geometry, or the WCS of each in one exposure."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from astropy import units as u
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS, FITSFixedWarning

from mapreduce import Box
from mapreduce.units import in_unit, number_in

from .detector import BaseDetector, Detector, WcsDetector, check_celestial, sky_of
from .focal_plane import Boresight, RadialTransform

__all__ = ["read_table", "read_wcs", "to_table"]

_TEXT = ("name", "type")
_UNITS = {
    "width": u.pix,
    "height": u.pix,
    "refpos_x": u.pix,
    "refpos_y": u.pix,
    "offset_x": u.mm,
    "offset_y": u.mm,
    "yaw": u.deg,
    "pixel_x": u.mm,
    "pixel_y": u.mm,
}
_COLUMNS = ("id", *_TEXT, *_UNITS)
_POSITIVE = ("width", "height", "pixel_x", "pixel_y")
_WHOLE = ("id", "width", "height")
_SCALE = "plate_scale_arcsec_per_mm"
_MAX_APART = 45  # deg; no camera sees more, and headers of several exposures often do


def read_table(table: Table) -> list[Detector]:
    """Make detectors of the rows of a table; see `Camera.from_table`."""
    wrong = [f"column {name} is missing" for name in _COLUMNS if name not in table.colnames]
    present = [name for name in ("id", *_UNITS) if name in table.colnames]
    columns: dict[str, Any] = {name: _numbers(table, name, wrong) for name in present}
    transform = _transform(table.meta, wrong)
    if transform is None or wrong:
        raise ValueError("; ".join(wrong))
    for name in _TEXT:
        columns[name] = ["" if text is np.ma.masked else str(text) for text in table[name]]
    rows = zip(*(columns[name] for name in _COLUMNS), strict=True)
    detectors = []
    for number, name, kind, nx, ny, rx, ry, ox, oy, yaw, px, py in rows:
        box = Box(0, 0, int(nx), int(ny))
        place = (rx, ry), (ox, oy), yaw, (px, py)
        detectors.append(Detector(int(number), name, kind, box, *place, transform))
    _check_edge(detectors, transform)
    return detectors


def to_table(detectors: list[BaseDetector], name: str) -> Table:
    """Return detectors as a table that `read_table` reads; see `Camera.to_table`."""
    plain = [detector for detector in detectors if isinstance(detector, Detector)]
    transforms = {detector.transform for detector in plain}
    if len(transforms) > 1 or len(plain) < len(detectors):
        raise ValueError("only a camera with one radial transform can be a table")
    for detector in plain:
        if detector.box[:2] != (0, 0):
            raise ValueError(f"detector {detector.id} does not start at (0, 0): {detector.box}")
    transform = transforms.pop()
    radial = {"transformType": "radial", "coeffs": list(transform.coeffs)}
    meta = {
        "camera": name,
        _SCALE: float(np.degrees(transform.plate_scale) * 3600),
        "transforms": {"FieldAngle": radial, "nativeSys": "FocalPlane"},
    }
    rows = [
        (d.id, d.name, d.type, *d.box[2:], *d.refpos, *d.offset, d.yaw, *d.pixel_size)
        for d in plain
    ]
    return Table(
        rows=rows, names=_COLUMNS, units=[_UNITS.get(name) for name in _COLUMNS], meta=meta
    )


def read_wcs(
    headers: Mapping[int, fits.Header | WCS], boxes: Mapping[int, Box] | None
) -> list[WcsDetector]:
    """Make detectors of the headers of one exposure; see `Camera.from_wcs`."""
    parts = {}
    for number, header in headers.items():
        wcs = _celestial(number, header)
        parts[number] = wcs, _box(number, wcs, boxes)
    if not parts:
        return []
    boresight = _mean_direction(parts)
    return [
        WcsDetector(number, _name(number, headers[number]), "", box, wcs, boresight)
        for number, (wcs, box) in parts.items()
    ]


def _numbers(table: Table, name: str, wrong: list[str]) -> np.ndarray | None:
    """Return a column in its unit as float64; what is wrong with it is added to a list."""
    column, unit = table[name], _UNITS.get(name)
    if column.dtype.kind not in "iuf" or column.ndim != 1:
        wrong.append(f"column {name} must hold one number per row, not {column.dtype}")
        return None
    try:
        values = in_unit(column, unit or u.dimensionless_unscaled, f"column {name}")
    except u.UnitConversionError as error:
        wrong.append(str(error))
        return None
    good, rule = np.isfinite(values), "finite"
    if name in _WHOLE:
        good, rule = good & (values == np.rint(values)), "a whole number"
    if name in _POSITIVE:
        good, rule = good & (values > 0), f"{rule} and positive"
    if not good.all():
        row = np.argmin(good)
        wrong.append(f"column {name} must be {rule}, row {row} has {values[row]:g}")
    return values


def _transform(meta: Mapping[str, Any], wrong: list[str]) -> RadialTransform | None:
    """Return the transform of a table's metadata; what is wrong with it is added to a list."""
    transforms = _mapping(meta.get("transforms"))
    radial = _mapping(transforms.get("FieldAngle"))
    kind, native = radial.get("transformType"), transforms.get("nativeSys", "FocalPlane")
    if missing := [key for key in (_SCALE, "transforms") if key not in meta]:
        wrong.append(f"metadata {', '.join(missing)} is missing")
    elif kind != "radial" or native != "FocalPlane":
        wrong.append(
            "the transform to FieldAngle must be radial and from FocalPlane, "
            f"is {kind} and from {native}"
        )
    else:
        try:
            scale = number_in(meta[_SCALE], u.arcsec / u.mm, _SCALE)
            return RadialTransform(np.radians(scale / 3600), radial.get("coeffs", ()))
        except (TypeError, ValueError) as error:
            wrong.append(str(error))
    return None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _check_edge(detectors: list[Detector], transform: RadialTransform) -> None:
    """Check that no two pixels of the camera have one field angle."""
    for detector in detectors:
        box = detector.box
        x, y = np.array([box.x0, box.x1]), np.array([[box.y0], [box.y1]])
        radius = np.hypot(*detector.to_focal_plane(x - 0.5, y - 0.5)).max()
        if radius >= transform.max_radius:
            raise ValueError(
                f"detector {detector.id} reaches a radius of {radius:g} mm, and the radial "
                f"transform {list(transform.coeffs)} turns back at {transform.max_radius:g} mm"
            )


def _celestial(number: int, header: fits.Header | WCS) -> WCS:
    if isinstance(header, fits.Header):
        with warnings.catch_warnings():
            # Astropy tells of every repair of an old spelling.
            warnings.simplefilter("ignore", FITSFixedWarning)
            try:
                header = WCS(header)
            except (ValueError, KeyError, AssertionError) as error:
                reason = " ".join(str(error).split())
                raise ValueError(
                    f"the WCS of detector {number} cannot be read: {reason}"
                ) from error
    check_celestial(number, header)
    return header


def _box(number: int, wcs: WCS, boxes: Mapping[int, Box] | None) -> Box:
    if boxes is not None:
        if number not in boxes:
            raise KeyError(f"boxes has no detector {number}")
        return boxes[number]
    if not wcs.pixel_shape or None in wcs.pixel_shape:
        raise ValueError(f"the header of detector {number} states no size; give boxes")
    return Box(0, 0, *wcs.pixel_shape)


def _name(number: int, header: fits.Header | WCS) -> str:
    return str(number if isinstance(header, WCS) else header.get("EXTNAME", number))


def _mean_direction(parts: Mapping[int, tuple[WCS, Box]]) -> Boresight:
    """Return the mean direction of detectors, each taken at the center of its box."""
    lon, lat = np.radians([sky_of(wcs, *box.center) for wcs, box in parts.values()]).T
    point = np.stack([np.cos(lon) * np.cos(lat), np.sin(lon) * np.cos(lat), np.sin(lat)])
    x, y, z = mean = point.sum(axis=1)
    apart = np.degrees(np.arccos(np.clip(mean @ point / np.linalg.norm(mean), -1, 1)))
    if not apart.max() < _MAX_APART:
        number = list(parts)[int(np.argmax(apart))]
        raise ValueError(
            f"detector {number} looks {apart.max():.0f} deg away from the mean direction of all; "
            "the headers must be of one exposure"
        )
    return Boresight(
        float(np.degrees(np.arctan2(y, x)) % 360), float(np.degrees(np.arctan2(z, np.hypot(x, y))))
    )
