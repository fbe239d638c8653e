"""A simulated field of standard stars, and a reference catalog of it in several formats."""

from __future__ import annotations

import numpy as np
import pytest

from calibration import FgcmRun, ProductsConfig
from calibration.reference.measure import reference_offsets
from calibration.sky.healpix import pixel_of
from tests.calibration.fgcm_cases import write_parquet

BANDS = ("g", "r")
OFFSETS = {"g": 0.03, "r": -0.05}
ARCSEC = 1 / 3600


def make_stars(count=3000, seed=1, width=2.0, center=(359.5, 20.0)):
    """Return standard stars, as the catalog has them, and their true magnitudes."""
    rng = np.random.default_rng(seed)
    ra = center[0] + width * (rng.random(count) - 0.5)
    dec = center[1] + width * (rng.random(count) - 0.5)
    r = rng.uniform(16, 19, count)
    truth = {"g": r + rng.uniform(0.2, 1.2, count), "r": r}
    magnitudes = np.stack([truth[band] for band in BANDS], axis=1)
    stars = {
        "id": np.arange(count),
        "coord_ra": np.radians(ra % 360),
        "coord_dec": np.radians(dec),
        "ngood": np.full((count, 2), 3),
        "mag_std_noabs": magnitudes + 0.005 * rng.standard_normal((count, 2)),
        "magErr_std": np.full((count, 2), 0.005),
        "meta": {"BANDS": "g,r"},
    }
    return stars, truth


def make_reference(stars, truth, seed=2, noise=0.01):
    """Return a table of the same stars in another order, a little off their places."""
    rng = np.random.default_rng(seed)
    count = len(stars["id"])
    order = rng.permutation(count)
    dec = np.degrees(stars["coord_dec"]) + 0.03 * ARCSEC * rng.standard_normal(count)
    ra = np.degrees(stars["coord_ra"]) + 0.03 * ARCSEC * rng.standard_normal(count)
    table = {"ra": ra[order] % 360, "dec": dec[order]}
    for band, values in truth.items():
        values = values[order] + OFFSETS[band] + noise * rng.standard_normal(count)
        table[f"{band}_flux"] = 10 ** (0.4 * (31.4 - values))
        table[f"{band}_fluxErr"] = table[f"{band}_flux"] * noise
    return table


def make_run(stars, **catalogs):
    """Return a run that has these standard stars."""
    visits = {"visit": [1], "physicalFilter": ["SIM-G"], "scaling": [[1.0]]}
    return FgcmRun(visits=visits, standard_stars=stars, **catalogs)


def write_hats(folder, table, orders, ra="ra", dec="dec", properties=""):
    """Write a table as a HATS catalog with partitions of two orders."""
    folder.mkdir()
    places = f"#HATS catalog\nhats_col_ra = {ra}\nhats_col_dec={dec}\n"
    (folder / "hats.properties").write_text(places + properties)
    (folder / "partition_info.csv").write_text("Norder,Npix\n")
    low, high = orders
    at_low = pixel_of(table[ra], table[dec], 2**low)
    coarse = at_low % 2 == 0
    for order, rows in ((low, coarse), (high, ~coarse)):
        pixels = pixel_of(table[ra], table[dec], 2**order)
        for pixel in np.unique(pixels[rows]):
            place = folder / "dataset" / f"Norder={order}" / f"Dir={pixel // 10000 * 10000}"
            place.mkdir(parents=True, exist_ok=True)
            mine = rows & (pixels == pixel)
            part = {name: values[mine] for name, values in table.items()}
            write_parquet(place / f"Npix={pixel}.parquet", part)
    return folder


CONFIG = ProductsConfig(
    reference_pixelization_min_stars=150,
    reference_pixelization_n_pixels=4,
    reference_min_match=50,
)
STARS, TRUTH = make_stars()
TABLE = make_reference(STARS, TRUTH)


def compute(stars=STARS, table=TABLE, config=CONFIG):
    """Return the offsets of stars against a table, computed here."""
    return reference_offsets(make_run(stars), config, table).compute(scheduler="sync")


def assert_close(found, expected):
    """Check that offsets are the same but for rounding."""
    assert found.offsets == pytest.approx(expected.offsets, abs=1e-9)
    assert found.errors == pytest.approx(expected.errors, abs=1e-9)
    np.testing.assert_array_equal(found.pixels["n_matches"], expected.pixels["n_matches"])
