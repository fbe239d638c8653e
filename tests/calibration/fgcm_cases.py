"""A small real FGCM run as tables, and the ways in which its files can be written."""

from __future__ import annotations

import json
import math
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from astropy.io import fits
from astropy.table import Table

from tests.conftest import DATA

RUN = DATA / "fgcm_run"
FILES = {
    "visits": "fgcmVisitCatalog",
    "zeropoints": "fgcmZeropoints",
    "atmosphere_parameters": "fgcmAtmosphereParameters",
    "standard_stars": "fgcmStandardStars",
    "lookup_table": "fgcmLookUpTable",
}
ALONE = {
    "physicalFilter": "FILTERNAME",
    "fgcmZpt": "FGCM_ZPT",
    "fgcmZptVar": "FGCM_ZPTVAR",
    "fgcmZptErr": "FGCM_ZPTERR",
    "fgcmFlag": "FGCM_FLAG",
    "fgcmGry": "FGCM_GRY",
    "fgcmTilings": "FGCM_TILINGS",
    "fgcmfZptChebXyMax": "FGCM_FZPT_XYMAX",
    "fgcmfZptCheb": "FGCM_FZPT_CHEB",
    "fgcmfZptSstarCheb": "FGCM_FZPT_SSTAR_CHEB",
    "fgcmDeltaChrom": "FGCM_DELTACHROM",
    "id": "FGCM_ID",
    "coord_ra": "RA",
    "coord_dec": "DEC",
    "isolated_star_id": "ALTERNATE_ID",
    "mag_std_noabs": "MAG_STD",
    "physicalFilters": "FILTERNAMES",
    "stdPhysicalFilters": "STDFILTERNAMES",
}


def tables():
    """Return the tables of the run by name, to be changed at will."""
    found = {}
    for name, stem in FILES.items():
        path = next(RUN.glob(f"{stem}.fits*"))
        found[name] = Table.read(path, hdu=1, unit_parse_strict="silent")
        found[name].convert_bytestring_to_unicode()
    found["lookup_table"].remove_column("lut")
    return found


def write(folder, tables, kind="fits", names=FILES):
    """Write tables to a folder, with the camera."""
    shutil.copy(RUN / "camera.ecsv", folder)
    for name, table in tables.items():
        path = folder / f"{names[name]}.{kind.removesuffix('-flat')}"
        if kind.startswith("fits"):
            fits.HDUList([fits.PrimaryHDU(), hdu_of(table)]).writeto(path, overwrite=True)
            continue
        columns = {c: np.asarray(table[c]) for c in table.colnames}
        units = {c: str(table[c].unit) for c in table.colnames if table[c].unit}
        if kind.endswith("-flat"):
            columns = flattened(columns)
        meta = {"BANDS": table.meta["BANDS"]} if "BANDS" in table.meta else None
        write_parquet(path, columns, units=units, meta=meta, rows_per_group=7)
    return folder


def write_parquet(path, columns, units=None, meta=None, rows_per_group=None):
    """Write a Parquet file as others do, with units and what is said of the table."""
    arrays, fields = [], []
    for name, values in columns.items():
        values = np.asarray(values)
        values = values.astype(values.dtype.newbyteorder("="))
        array = pa.array(values.reshape(-1))
        if values.ndim > 1:
            array = pa.FixedSizeListArray.from_arrays(array, math.prod(values.shape[1:]))
        unit = (units or {}).get(name)
        fields.append(pa.field(name, array.type, metadata={"unit": unit} if unit else None))
        arrays.append(array)
    texts = {key: v if isinstance(v, str) else json.dumps(v) for key, v in (meta or {}).items()}
    table = pa.table(arrays, schema=pa.schema(fields, metadata=texts))
    pq.write_table(table, path, row_group_size=rows_per_group)


def hdu_of(table):
    """Return the FITS table of a table; also with units that are not in the FITS standard."""
    bare = Table({name: np.asarray(table[name]) for name in table.colnames})
    hdu = fits.BinTableHDU(bare)
    hdu.header.update({k: v for k, v in table.meta.items() if k in ("BANDS", "TRACT")})
    for i, name in enumerate(table.colnames, start=1):
        if table[name].unit:
            hdu.header[f"TUNIT{i}"] = str(table[name].unit)
    return hdu


def flattened(columns):
    """Return columns with those of arrays as one column for each value."""
    flat = {}
    for name, values in columns.items():
        if values.ndim == 1:
            flat[name] = values
        else:
            flat |= {f"{name}_{i}": values[:, i] for i in range(values.shape[1])}
    return flat


def upper(table):
    """Return a table with the stand-alone package's column names, and no units."""
    table = table.copy()
    for name in table.colnames:
        table[name].unit = None
        table.rename_column(name, ALONE.get(name, name.upper()))
    return table


def fgcm_zeropoints(table, fields):
    """Return zeropoints as fgcm writes them: with fields only if ``outputFgcmcalZpts`` is set."""
    kinds = {"VISIT": "i8", "CCDNUM": "i2", "FGCM_FLAG": "i2", "FGCM_TILINGS": "f8"}
    kinds |= {"EXPTIME": "f4", "FGCM_FZPT_XYMAX": "f4", "FILTERNAME": "S6"}
    out = upper(table)
    out.rename_column("DETECTOR", "CCDNUM")
    out["FGCM_FZPT_XYMAX"] += 1  # X_SIZE and Y_SIZE of its own offsets of the CCDs
    if not fields:
        out.remove_columns(["FGCM_FZPT_XYMAX", "FGCM_FZPT_CHEB", "FGCM_FZPT_SSTAR_CHEB"])
    for name in out.colnames:
        out[name] = np.asarray(out[name]).astype(kinds.get(name, "f8"))
    out["BAND"] = np.array(["x"] * len(out), "S1")
    out.meta.clear()
    return out


def write_alone(folder, tables, fields=True):
    """Write tables to a folder as a stand-alone fit does."""
    shutil.copy(RUN / "camera.ecsv", folder)
    small = {name: upper(table) for name, table in tables.items()}
    small["visits"].remove_column("SCALING")
    stars = small["standard_stars"]
    for name in ("RA", "DEC"):
        stars[name] = np.rad2deg(stars[name])
    stars.meta = {f"BAND{i}": band for i, band in enumerate(stars.meta["BANDS"].split(","))}
    small["zeropoints"] = fgcm_zeropoints(tables["zeropoints"], fields)
    files = {"zeropoints": "zpt", "atmosphere_parameters": "atm", "standard_stars": "stdstars"}
    for name, ending in files.items():
        small[name].write(folder / f"survey_cycle03_{ending}.fits")
    small["visits"].write(folder / "exposures.fits")
    config = {"exposureFile": "exposures.fits", "lutFile": "throughput.fits"}
    (folder / "survey_cycle04_config.yml").write_text(json.dumps(config))
    row = small["lookup_table"][:1]
    parts = {
        "LUT": Table({"I0": np.zeros(5), "I1": np.zeros(5)}),
        "INDEX": row["PMBELEVATION", "LAMBDANORM"],
        "STD": row["PMBSTD", "ATMLAMBDA", "ATMSTDTRANS"],
    }
    for name in ("FILTERNAMES", "STDFILTERNAMES"):
        parts["INDEX"][name] = np.array([row[name][0].split(",")], "S10")
    hdus = [fits.BinTableHDU(table, name=name) for name, table in parts.items()]
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(folder / "throughput.fits")
    return folder
