"""PSF models on disk: PSFEx files, and our own HDUs that keep any PSF.

`GaussianPsf`, `DoubleGaussianPsf`, `KernelPsf` and `PsfexPsf` are rows of a table, a column per
field (header cards would lose the last digits), all models of one class and shape in one table.
A `CellPsf` is a table of its own, a row per cell (index, x0, y0, width, height, weight, psf, row),
where psf = n and row = i mean the model in row i, from 0, of HDU ``PSFn``. The model itself is in
HDU ``PSF``, after those it needs. The card ``PSFMODEL`` names the class. Numbers are float64 and
int64, so a model comes back equal to the last bit.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from os import PathLike
from typing import Any, NamedTuple

import numpy as np
from astropy.io import fits

from ..exposure.box import Box
from ..exposure.cell_psf import CellPsf, PsfComponent
from ..exposure.formats import naming
from ..exposure.psf import (
    DoubleGaussianPsf,
    GaussianPsf,
    KernelPsf,
    Psf,
    PsfexPsf,
)
from .hdu import open_file

__all__ = ["psf_from_hdus", "psf_or_warning", "psf_to_hdus", "read_psfex"]

_ROW_MODELS = {
    model.__name__: model for model in (GaussianPsf, DoubleGaussianPsf, KernelPsf, PsfexPsf)
}
_CELL_COLUMNS = ("index", "x0", "y0", "width", "height", "weight", "psf", "row")


def read_psfex(
    path: str | PathLike[str],
    *,
    ccdname: str | None = None,
    expnum: int | None = None,
    hdu: int | None = None,
    origin: tuple[int, int] = (0, 0),
) -> PsfexPsf:
    """Read a PSFEx model.

    Takes the ``.psf`` files that PSFEx writes (one model per table HDU, cards in its header) and
    the "merged" tables of the Legacy Surveys (one row per CCD, the cards as columns; planes padded
    with zeros are trimmed).

    Parameters
    ----------
    path : path or URL
        The file.
    ccdname, expnum : str and int, optional
        Which row of a merged table; needed when several rows are left.
    hdu : int, optional
        Index of the HDU; needed when several HDUs hold a model.
    origin : (int, int)
        Parent coordinates (x, y) of the first pixel of the image the model was made on. PSFEx
        counts pixels from 1: its (1, 1) is this point.

    Returns
    -------
    PsfexPsf

    Raises
    ------
    OSError
        If the file is missing (FileNotFoundError) or cannot be read.
    ValueError
        If the file has no PSFEx model, several that fit, or one that varies with something
        other than the position or that failed (sampling 0).

    Examples
    --------
    The smallest PSFEx file, a model that is the same everywhere:

    >>> from tempfile import TemporaryDirectory
    >>> plane = fits.Column("PSF_MASK", "9E", dim="(3,3,1)", array=np.ones((1, 1, 3, 3)))
    >>> table = fits.BinTableHDU.from_columns([plane])
    >>> table.header["PSF_SAMP"] = 1.0
    >>> with TemporaryDirectory() as folder:
    ...     table.writeto(f"{folder}/constant.psf")
    ...     read_psfex(f"{folder}/constant.psf")
    PsfexPsf(<1 planes of 3 x 3>, degree=0, sampling=1)
    """
    with naming(path), _opened(path) as hdulist:
        table = _psfex_table(hdulist, hdu, path)
        row = _psfex_row(table, ccdname, expnum, path)
        cards = {name.lower(): value for name, value in table.header.items()}
        cards |= {name.lower(): row[name] for name in table.columns.names}
        try:
            return _psfex_model(cards, origin)
        except KeyError as error:
            raise ValueError(f"{path} has no card or column {str(error).upper()}") from error


def psf_to_hdus(psf: Psf) -> list[fits.BinTableHDU]:
    """Store a model as HDUs, the model itself last; see the module for the form.

    Parameters
    ----------
    psf : Psf
        Any model, or a `CellPsf` of any; equal PSFs of cells are stored once.

    Returns
    -------
    list of BinTableHDU
        With EXTNAMEs PSF1, PSF2, ..., PSF.

    Raises
    ------
    TypeError
        If the model, or the model of a cell, is of another class.

    Examples
    --------
    >>> [hdu.name for hdu in psf_to_hdus(GaussianPsf(2.0))]
    ['PSF']
    """
    places: dict[Psf, Place] = {}
    groups: dict[object, Group] = {}
    _add(psf, places, groups)
    hdus = [_hdu(group, places) for group in groups.values()]
    hdus[-1].name = "PSF"
    return hdus


def psf_from_hdus(hdus: Iterable[Any]) -> Psf | None:
    """Rebuild the model that `psf_to_hdus` stored.

    Parameters
    ----------
    hdus : HDUList or iterable of HDUs
        May hold any other HDUs too.

    Returns
    -------
    Psf or None
        None if no model was stored.

    Raises
    ------
    ValueError
        If a model was stored by a class unknown here, or an HDU it needs is missing.

    Examples
    --------
    >>> psf_from_hdus(psf_to_hdus(GaussianPsf(2.0)))
    GaussianPsf(sigma=2.0, size=21)
    >>> psf_from_hdus([fits.PrimaryHDU()]) is None
    True
    """
    stored = {hdu.name.upper(): hdu for hdu in hdus if "PSFMODEL" in hdu.header}
    if not stored:
        return None
    if "PSF" not in stored:
        raise ValueError(f"HDU PSF is missing; there are {', '.join(sorted(stored))}")
    # A table needs only tables with smaller numbers, and PSF comes last.
    models: dict[int, list[Psf]] = {}
    for number in range(1, len(stored)):
        if f"PSF{number}" not in stored:
            raise ValueError(f"HDU PSF{number} is missing; there are {', '.join(sorted(stored))}")
        models[number] = _models(stored[f"PSF{number}"], models)
    return _models(stored["PSF"], models)[0]


@contextmanager
def psf_or_warning(where: str) -> Iterator[None]:
    """Let an exposure do without a PSF that cannot be read: a warning says so.

    Examples
    --------
    >>> with warnings.catch_warnings(record=True, action="always") as caught:
    ...     with psf_or_warning("a.fits, HDU 4 (PSF)"):
    ...         raise ValueError("it is 7")
    >>> print(caught[0].message)
    a.fits, HDU 4 (PSF): the PSF cannot be read, the exposure has none: ValueError: it is 7
    """
    try:
        yield
    except Warning:
        raise
    except Exception as error:  # a model may be damaged in as many ways as a file
        warnings.warn(
            f"{where}: the PSF cannot be read, the exposure has none: "
            f"{type(error).__name__}: {error}",
            stacklevel=2,
        )


Place = tuple[int, int]  # number of an HDU, and a row of it


class Group(NamedTuple):
    """What one HDU holds."""

    number: int
    models: list[Psf]


def _add(psf: Psf, places: dict[Psf, Place], groups: dict[object, Group]) -> None:
    """Find a model its place, after those it needs."""
    if psf in places:
        return
    if type(psf) is CellPsf:
        for component in psf.components:
            _add(component.psf, places, groups)
        kind: object = psf  # which has a table of its own
    elif type(psf) in _ROW_MODELS.values():
        kind = _kind(psf)
    else:
        raise TypeError(
            f"cannot store a {type(psf).__name__}; a KernelPsf of its image at one position can be"
        )
    number, models = groups.setdefault(kind, Group(len(groups) + 1, []))
    places[psf] = number, len(models)
    models.append(psf)


def _kind(psf: Psf) -> tuple[Any, ...]:
    """Return what the models in one table agree in: class, and the shapes of the fields."""
    return type(psf), *(np.shape(getattr(psf, field.name)) for field in fields(psf))


def _hdu(group: Group, places: Mapping[Psf, Place]) -> fits.BinTableHDU:
    """Return the HDU of a group of models."""
    psf = group.models[0]
    columns: dict[str, Sequence[Any]]
    if type(psf) is CellPsf:
        rows = [(c.index, *c.box, c.weight, *places[c.psf]) for c in psf.components]
        columns = dict(zip(_CELL_COLUMNS, zip(*rows, strict=True), strict=True))
    else:
        columns = {
            f.name.lstrip("_"): [getattr(model, f.name) for model in group.models]
            for f in fields(psf)
        }
    hdu = _table({name: np.array(values) for name, values in columns.items()})
    hdu.name = f"PSF{group.number}"
    hdu.header["PSFMODEL"] = (type(psf).__name__, "class of the PSF model")
    return hdu


def _table(columns: Mapping[str, np.ndarray]) -> fits.BinTableHDU:
    """Table of float64 and int64 columns."""
    made = []
    for name, values in columns.items():
        code = "D" if values.dtype.kind == "f" else "K"
        shape = values.shape[1:]
        dim = f"({','.join(map(str, shape[::-1]))})" if len(shape) > 1 else None
        form = f"{int(np.prod(shape))}{code}"
        made.append(fits.Column(name=name, format=form, dim=dim, array=values))
    return fits.BinTableHDU.from_columns(made)


def _models(hdu: Any, models: Mapping[int, list[Psf]]) -> list[Psf]:
    """Return the models in an HDU, given those in the HDUs before it."""
    name = hdu.header["PSFMODEL"]
    if name == "CellPsf":
        return [_cell_psf(hdu, models)]
    if name not in _ROW_MODELS:
        known = ", ".join(["CellPsf", *_ROW_MODELS])
        raise ValueError(f"HDU {hdu.name} holds a {name}, but the known models are {known}")
    columns = {column: _numbers(hdu, column) for column in hdu.columns.names}
    # Images as arrays, numbers as Python's.
    values = {k: v if v.ndim > 2 else v.tolist() for k, v in columns.items()}
    return [
        _ROW_MODELS[name](**dict(zip(values, row, strict=True)))
        for row in zip(*values.values(), strict=True)
    ]


def _numbers(hdu: Any, column: str) -> np.ndarray:
    """Return a column of integers or of floats."""
    values = np.asarray(hdu.data[column])
    if values.dtype.kind not in "iuf":
        raise ValueError(f"the column {column} of HDU {hdu.name} is {values.dtype}, not numbers")
    return values


def _cell_psf(hdu: Any, models: Mapping[int, list[Psf]]) -> CellPsf:
    columns = [_numbers(hdu, name).tolist() for name in _CELL_COLUMNS]
    if missing := sorted({*columns[-2]} - models.keys()):
        raise ValueError(f"HDU {hdu.name} needs HDU PSF{missing[0]}, which is missing")
    for number, row in zip(*columns[-2:], strict=True):
        if not 0 <= row < len(models[number]):
            raise ValueError(f"HDU PSF{number} has {len(models[number])} models, no row {row}")
    return CellPsf(
        PsfComponent(index, Box(x0, y0, width, height), models[number][row], weight)
        for index, x0, y0, width, height, weight, number, row in zip(*columns, strict=True)
    )


def _opened(path: str | PathLike[str]) -> fits.HDUList:
    try:
        return open_file(path)
    except OSError as error:
        if "is not a FITS file" not in str(error):
            raise
        raise ValueError(str(error)) from error


def _psfex_table(hdulist: fits.HDUList, hdu: int | None, path: Any) -> fits.BinTableHDU:
    """Return the table HDU that holds the model or models."""
    found = [
        i
        for i, table in enumerate(hdulist)
        if isinstance(table, fits.BinTableHDU)
        and "psf_mask" in (name.lower() for name in table.columns.names)
    ]
    if not found and "psf_model" in (table.name.lower() for table in hdulist):
        raise ValueError(f"{path} is a Piff file, not a PSFEx one; open it with the piff package")
    if not found:
        names = ", ".join(f"{i} {table.name or '(no name)'}" for i, table in enumerate(hdulist))
        raise ValueError(f"{path} has no table with a column PSF_MASK; its HDUs: {names}")
    if hdu is None and len(found) > 1:
        raise ValueError(f"{path} has several PSFEx models, in HDUs {found}; choose one with hdu=")
    if hdu is not None and hdu not in found:
        raise ValueError(f"{path} has no PSFEx model in HDU {hdu}; there is one in {found}")
    return hdulist[found[0] if hdu is None else hdu]


def _psfex_row(
    table: fits.BinTableHDU, ccdname: str | None, expnum: int | None, path: Any
) -> fits.FITS_record:
    """Return the row of the wanted CCD and exposure."""
    data = table.data
    names = {name.lower() for name in table.columns.names}
    keep = np.ones(len(data), dtype=bool)
    for name, wanted in (("ccdname", ccdname), ("expnum", expnum)):
        if wanted is None:
            continue
        if name not in names:
            raise ValueError(f"{path} has no column {name}: it does not say which {name} it is for")
        values = np.char.strip(data[name]) if name == "ccdname" else data[name]
        keep &= values == wanted
    if keep.sum() == 1:
        return data[np.flatnonzero(keep)[0]]
    listed = ", ".join(
        " ".join(str(row[name]).strip() for name in ("expnum", "ccdname") if name in names)
        for row in data
    )
    wanted = f"expnum={expnum}, ccdname={ccdname}"
    raise ValueError(f"{path}: {keep.sum()} of {len(data)} rows fit {wanted}; rows: {listed}")


def _psfex_model(cards: Mapping[str, Any], origin: tuple[int, int]) -> PsfexPsf:
    """Model from its cards and its `psf_mask`, all under lower-case names."""
    planes = np.asarray(cards["psf_mask"], dtype=float)
    shape = [int(cards.get(f"psfaxis{i}", 0)) for i in (3, 2, 1)]
    if planes.ndim == 1 and np.prod(shape) == planes.size:
        planes = planes.reshape(shape)
    planes = planes.reshape((-1, *planes.shape[-2:]))
    planes = planes[tuple(slice(n or None) for n in shape)]
    if not float(cards.get("psf_samp", 0)) > 0:
        raise ValueError(f"PSF_SAMP is {cards.get('psf_samp')}: there is no valid model here")
    model = {"sampling": cards["psf_samp"], "origin": (origin[0] - 1, origin[1] - 1)}
    # Some writers leave POLNAXIS out.
    count = int(cards.get("polnaxis", 2 if "polname1" in cards else 0))
    if count == 0:
        return PsfexPsf(planes, degree=0, average_position=origin, **model)
    listed = range(min(count, 9))
    axes = [str(cards.get(f"polname{i + 1}", "?")).strip().upper() for i in listed]
    groups = int(cards.get("polngrp", 1))
    if groups != 1 or [axis[:1] + axis[-6:] for axis in axes] != ["X_IMAGE", "Y_IMAGE"]:
        raise ValueError(
            f"the model varies with {', '.join(axes)} in {groups} group(s); "
            f"only X_IMAGE, Y_IMAGE in one group is supported"
        )
    return PsfexPsf(
        planes,
        degree=int(cards["poldeg1"]),
        offset=(cards["polzero1"], cards["polzero2"]),
        scale=(cards["polscal1"], cards["polscal2"]),
        **model,
    )
