"""Reference offsets: the numbers, whatever the catalog's format, the grouping and the scheduler."""

from __future__ import annotations

import pickle
import sys
from dataclasses import replace

import numpy as np
import pytest
from astropy.table import Table

from calibration import ColorTerm, FgcmRun, ProductsConfig
from calibration.reference import measure as reference_module
from calibration.reference.catalog import MissingBandError, ReferenceCatalog, ReferenceWarning
from calibration.reference.comparison import EDGES
from calibration.reference.measure import reference_offsets
from calibration.reference.sample import sample_pixels
from calibration.sky.healpix import center, corners, pixel_of
from tests.calibration.reference_cases import (
    ARCSEC,
    BANDS,
    CONFIG,
    OFFSETS,
    STARS,
    TABLE,
    TRUTH,
    compute,
    make_reference,
    make_run,
    make_stars,
    write_hats,
)


def assert_same(found, expected):
    assert found.offsets == expected.offsets
    assert found.errors == expected.errors
    for name in expected.pixels.colnames:
        np.testing.assert_array_equal(found.pixels[name], expected.pixels[name], err_msg=name)
    for band in expected:
        np.testing.assert_array_equal(found.residuals[band], expected.residuals[band])


def changed(stars, **columns):
    return {**stars, **columns}


# Numbers


@pytest.mark.slow
def test_the_offsets_of_a_fit_agree_with_what_is_known_of_it(shared):
    run = FgcmRun.open(shared / "data" / "fgcm_run")
    medians = {"g": -0.0448, "r": -0.0430, "i": -0.0010, "z": -0.0473}
    for nside, least in ((64, 200), (128, 150)):  # a small field, of 4 and of 9 pixels
        config = ProductsConfig(
            reference_pixelization_nside=nside, reference_pixelization_min_stars=least
        )
        with pytest.warns(ReferenceWarning, match="of the 100 pixels that were asked for"):
            found = reference_offsets(run, config).compute()
        assert [*found] == [*medians]
        for band, median in medians.items():
            assert abs(found[band] - median) < min(0.002, 3 * found.errors[band])
            assert 1e-4 < found.errors[band] < 1e-3
            assert found.n_pixels[band] >= 4


def test_offsets_are_those_that_were_put_in():
    found = compute()
    for band in BANDS:
        assert abs(found[band] - OFFSETS[band]) < 3 * found.errors[band]
        assert 2e-4 < found.errors[band] < 2e-3
        assert found.scatter[band] < 3e-3
        assert found.n_pixels[band] == 4
    assert found.warnings == ()


@pytest.mark.slow
def test_errors_of_offsets_are_as_large_as_their_errors_are():
    pulls = []
    for seed in range(40):
        table = make_reference(STARS, TRUTH, seed=seed)
        found = compute(table=table)
        pulls += [(found[band] - OFFSETS[band]) / found.errors[band] for band in BANDS]
    assert 0.4 < np.std(pulls) < 1.25


def test_a_pixel_is_reported_for_each_band():
    found = compute()
    report = found.pixels
    assert len(report) == 4 * len(BANDS)
    assert report["ra"].unit == "deg"
    assert report["zero_point"].unit == "mag"
    ra, dec = (np.degrees(STARS[f"coord_{name}"]) for name in ("ra", "dec"))
    of_star = pixel_of(ra, dec, 64)
    for row in report:
        assert row["n_stars"] == row["n_selected"] == np.sum(of_star == row["pixel"])
        assert row["n_matches"] == row["n_stars"] <= row["n_reference"]
        assert row["n_clipped"] < 0.02 * row["n_matches"]
        assert abs(row["zero_point"] - OFFSETS[row["band"]]) < 5 * row["error"]
        assert 0.008 < row["scatter"] < 0.015
        assert row["used"]
        assert [row["ra"], row["dec"]] == pytest.approx(center(row["pixel"], 64))
    for band, (matches, kept) in found.residuals.items():
        rows = report[report["band"] == band]
        assert matches.sum() == rows["n_matches"].sum()
        assert kept.sum() == rows["n_matches"].sum() - rows["n_clipped"].sum()
        np.testing.assert_allclose(EDGES[matches.argmax()], 0, atol=0.01)


def test_the_table_has_a_row_for_each_band(tmp_path):
    found = compute()
    table = found.to_table()
    assert [*table["band"]] == [*found]
    assert [*table["offset"]] == [*found.values()]
    assert [*table["n_matches"]] == [
        found.pixels["n_matches"][found.pixels["band"] == band].sum() for band in found
    ]
    assert table.meta["NSIDE"] == 64
    for name, written in (("offsets", table), ("pixels", found.pixels)):
        written.write(tmp_path / f"{name}.fits")
        assert Table.read(tmp_path / f"{name}.fits")["band"][0] == "g"


def test_offsets_are_a_mapping():
    found = compute()
    assert dict(found) == found.offsets
    assert "g" in found
    assert "g +0.0" in repr(found)
    with pytest.raises(KeyError, match="no offset of band 'y', but of g, r"):
        found["y"]
    assert_same(pickle.loads(pickle.dumps(found)), found)


def test_outliers_are_clipped_and_move_nothing():
    table = {name: values.copy() for name, values in TABLE.items()}
    table["g_flux"][::5] *= 10**0.4
    found = compute(table=table)
    assert abs(found["g"] - OFFSETS["g"]) < 2e-3
    rows = found.pixels[found.pixels["band"] == "g"]
    assert np.all(rows["n_clipped"] > 0.15 * rows["n_matches"])


def test_a_pixel_with_few_matches_does_not_count():
    table = {name: values.copy() for name, values in TABLE.items()}
    pixels = pixel_of(table["ra"], table["dec"], 64)
    poor = compute().pixels["pixel"][0]
    here = np.flatnonzero(pixels == poor)
    table["r_flux"][here] *= 2  # it would be seen
    table["r_flux"][here[49:]] = np.nan
    found = compute(table=table)
    rows = found.pixels[found.pixels["pixel"] == poor]
    assert dict(zip(rows["band"], rows["used"], strict=True)) == {"g": True, "r": False}
    assert rows["n_matches"][1] == 49
    assert found.n_pixels == {"g": 4, "r": 3}
    assert abs(found["r"] - OFFSETS["r"]) < 2e-3


def test_one_pixel_has_an_error_too():
    found = compute(config=CONFIG.replace(reference_pixelization_n_pixels=1))
    assert found.scatter["g"] == 0
    assert found.errors["g"] == found.pixels["error"][0] > 3e-4


# Who takes part


def test_a_good_observation_is_needed_in_every_band():
    ngood = STARS["ngood"].copy()
    ngood[:1000, 1] = 0
    found = compute(changed(STARS, ngood=ngood), config=CONFIG)
    ra, dec = (np.degrees(STARS[f"coord_{name}"])[1000:] for name in ("ra", "dec"))
    count = dict(zip(*np.unique(pixel_of(ra, dec, 64), return_counts=True), strict=True))
    assert all(row["n_stars"] == count[row["pixel"]] for row in found.pixels)


@pytest.mark.parametrize("change", ["none", "faint"])
def test_stars_without_a_magnitude_or_signal_are_not_selected(change):
    magnitudes, errors = STARS["mag_std_noabs"].copy(), STARS["magErr_std"].copy()
    errors[:500, 0] = 0.1087  # signal-to-noise just below 10
    if change == "none":
        magnitudes[:500, 0] = errors[:500, 0] = 99
    else:
        magnitudes[:500, 0] += 1
        errors[500:1000, 0] = 0.1085
    found = compute(changed(STARS, mag_std_noabs=magnitudes, magErr_std=errors))
    of_band = {band: found.pixels[found.pixels["band"] == band] for band in BANDS}
    assert of_band["r"]["n_selected"].sum() == of_band["r"]["n_stars"].sum()
    fewer = of_band["g"]["n_stars"] - of_band["g"]["n_selected"]
    sample = sample_pixels(make_run(STARS).standard_stars, BANDS, CONFIG)
    ra, dec = (np.degrees(STARS[f"coord_{name}"])[:500] for name in ("ra", "dec"))
    assert [*fewer] == [np.sum(pixel_of(ra, dec, 64) == p) for p in sample.pixels]
    assert abs(found["g"] - OFFSETS["g"]) < 3e-3


def test_faint_reference_stars_take_no_part():
    table = {name: values.copy() for name, values in TABLE.items()}
    table["g_fluxErr"][::3] = table["g_flux"][::3] / 9.9
    table["g_flux"][::3] *= 2
    table["g_fluxErr"][::3] *= 2
    rows = compute(table=table).pixels
    g, r = (rows[rows["band"] == band] for band in BANDS)
    assert np.all(g["n_reference"] < 0.75 * r["n_reference"])
    np.testing.assert_array_equal(r["n_reference"], compute().pixels["n_reference"][1::2])


def test_each_star_has_its_own_reference_star():
    """A brighter neighbor of every reference star, farther away, changes nothing."""
    neighbors = {name: values.copy() for name, values in TABLE.items()}
    neighbors["dec"] += 0.2 * ARCSEC
    for band in BANDS:
        neighbors[f"{band}_flux"] *= 5
    both = {name: np.concatenate([TABLE[name], neighbors[name]]) for name in TABLE}
    found, alone = compute(table=both), compute()
    np.testing.assert_array_equal(found.pixels["n_matches"], alone.pixels["n_matches"])
    for band in BANDS:
        assert abs(found[band] - alone[band]) < 1e-3


def test_reference_stars_beyond_the_border_are_matched():
    """Of stars along the edges of a pixel, all are matched to what lies outside of it."""
    pixel = pixel_of(45.0, 20.0, 64)
    ra, dec = corners(pixel, 64, step=40)
    inside = 0.9999
    middle = center(pixel, 64)
    ra, dec = (m + inside * (e - m) for m, e in zip(middle, (ra, dec), strict=True))
    outside = 1.0002
    stars, truth = make_stars(count=160)
    stars |= {"coord_ra": np.radians(ra), "coord_dec": np.radians(dec)}
    table = make_reference(stars, truth)
    order = np.random.default_rng(2).permutation(160)
    table["ra"], table["dec"] = (
        (m + outside / inside * (p - m))[order] for m, p in zip(middle, (ra, dec), strict=True)
    )
    assert np.all(pixel_of(ra, dec, 64) == pixel)
    assert np.all(pixel_of(table["ra"], table["dec"], 64) != pixel)
    config = CONFIG.replace(
        reference_match_radius=2.0,
        reference_pixelization_n_pixels=1,
    )
    found = compute(stars, table, config)
    assert [*found.pixels["n_matches"]] == [160, 160]
    assert abs(found["r"] - OFFSETS["r"]) < 5e-3


@pytest.mark.parametrize("dec", [89.9, -89.9])
def test_pixels_may_lie_about_a_pole(dec):
    stars, truth = make_stars(count=800, center=(0.0, 0.0))
    rng = np.random.default_rng(5)
    ra = rng.uniform(0, 360, 800)
    stars |= {
        "coord_ra": np.radians(ra),
        "coord_dec": np.radians(np.sign(dec) * (90 - 0.8 * np.sqrt(rng.random(800)))),
    }
    table = make_reference(stars, truth)
    order = np.random.default_rng(2).permutation(800)
    table["ra"] = ra[order]
    config = CONFIG.replace(reference_pixelization_min_stars=100)
    found = compute(stars, table, config)
    np.testing.assert_array_equal(found.pixels["n_matches"], found.pixels["n_stars"])
    assert abs(found["g"] - OFFSETS["g"]) < 3e-3


# Color terms


def test_a_color_term_carries_the_reference_into_the_standard_band():
    term = ColorTerm(primary="G", secondary="R", c0=0.01, c1=0.2, c2=-0.05)
    color = TRUTH["g"] - TRUTH["r"]
    bent = {"g": TRUTH["g"] - term.c0 - term.c1 * color - term.c2 * color**2}
    table = make_reference(STARS, bent | {"r": TRUTH["r"]}, noise=1e-4)
    for band in BANDS:  # the term is of magnitudes without an offset
        for name in ("flux", "fluxErr"):
            table[f"{band}_{name}"] *= 10 ** (0.4 * OFFSETS[band])
    # The color of the reference stars is not quite that of the standard stars.
    reference_color = bent["g"] - TRUTH["r"]
    expected = np.median(
        bent["g"] + term.c0 + term.c1 * reference_color + term.c2 * reference_color**2 - TRUTH["g"]
    )
    names = {f"{b}_{n}": f"{b.upper()}_{n}" for b in BANDS for n in ("flux", "fluxErr")}
    table = {names.get(name, name): values for name, values in table.items()}
    terms = {"g": term, "r": ColorTerm(primary="R", secondary="R")}
    found = compute(table=table, config=CONFIG.replace(color_terms=terms))
    assert abs(found["g"] - expected) < 5e-3
    assert abs(found["r"]) < 1e-3
    without = {b: ColorTerm(primary=b.upper(), secondary=b.upper()) for b in BANDS}
    plain = compute(table=table, config=CONFIG.replace(color_terms=without))
    assert abs(plain["g"] - expected) > 0.05


def test_a_reference_star_needs_both_bands_of_a_color_term():
    table = {name: values.copy() for name, values in TABLE.items()}
    table["r_flux"][::2] = np.nan
    terms = {"g": ColorTerm(primary="g", secondary="r")}
    rows = compute(table=table, config=CONFIG.replace(color_terms=terms)).pixels
    g, r = (rows[rows["band"] == band] for band in BANDS)
    np.testing.assert_array_equal(g["n_matches"], r["n_matches"])
    assert np.all(g["n_matches"] < g["n_selected"])


def test_the_color_adds_to_the_error_of_a_pixel():
    terms = {"g": ColorTerm(primary="g", secondary="r", c1=0.5)}
    wide = compute(config=CONFIG.replace(color_terms=terms)).pixels["error"][0]
    plain = compute().pixels["error"][0]
    assert wide / plain == pytest.approx(np.sqrt((1.5**2 + 0.5**2 + 0.34) / 1.34), rel=0.1)


def test_the_floor_adds_to_the_error_of_a_pixel():
    config = CONFIG.replace(magnitude_error_floor=0.02)
    ratio = compute(config=config).pixels["error"] / compute().pixels["error"]
    np.testing.assert_allclose(ratio, np.sqrt((1.25 + 4) / 1.34), rtol=0.1)


# Sampling, grouping, schedulers


def fine(**fields):
    """Return a configuration with some 20 pixels of half a degree."""
    return CONFIG.replace(
        reference_pixelization_nside=128,
        reference_pixelization_min_stars=50,
        reference_min_match=40,
        **fields,
    )


def test_a_sample_is_drawn_by_its_seed():
    config = fine(reference_pixelization_n_pixels=5, seed=1)
    first, second = compute(config=config), compute(config=config)
    assert_same(second, first)
    other = compute(config=config.replace(seed=2))
    assert len(set(first.pixels["pixel"])) == 5
    assert set(other.pixels["pixel"]) != set(first.pixels["pixel"])
    assert other.offsets != first.offsets
    assert first.pixels.meta["SEED"] == 1


def test_a_sample_does_not_depend_on_the_order_of_the_stars():
    order = np.random.default_rng(0).permutation(len(STARS["id"]))
    shuffled = {n: v if n == "meta" else v[order] for n, v in STARS.items()}
    config = fine(reference_pixelization_n_pixels=5)
    found, expected = compute(shuffled, config=config), compute(config=config)
    np.testing.assert_array_equal(found.pixels["pixel"], expected.pixels["pixel"])
    assert found.offsets == pytest.approx(expected.offsets, abs=1e-12)


def test_fewer_pixels_than_asked_for_is_a_warning():
    config = CONFIG.replace(reference_pixelization_n_pixels=9)
    with pytest.warns(ReferenceWarning, match="of the 9 pixels that were asked for") as caught:
        found = compute(config=config)
    assert len(caught) == 1
    assert found.warnings == (str(caught[0].message),)
    assert found.n_pixels["g"] < 9


@pytest.mark.slow
@pytest.mark.parametrize("groups", [1, 3, 40])
@pytest.mark.parametrize("kind", ["memory", "hats"])
def test_the_grouping_of_pixels_does_not_matter(groups, kind, monkeypatch, tmp_path):
    table = TABLE
    if kind == "hats":
        pytest.importorskip("pyarrow")
        table = write_hats(tmp_path / "cat", TABLE, (5, 6))
    config = fine(reference_pixelization_n_pixels=10)
    expected = compute(table=table, config=config)
    monkeypatch.setattr(reference_module, "GROUPS", groups)
    delayed = reference_offsets(make_run(STARS), config, table)
    assert len(dict(delayed.dask)) < 10 + 4 * min(groups, 10)
    assert_same(delayed.compute(scheduler="sync"), expected)


def test_the_scheduler_does_not_matter():
    config = fine(reference_pixelization_n_pixels=10)
    delayed = reference_offsets(make_run(STARS), config, TABLE)
    assert_same(delayed.compute(scheduler="threads"), compute(config=config))


@pytest.mark.slow
def test_a_cluster_gives_the_same(client, tmp_path):
    path = tmp_path / "reference.fits"
    Table(TABLE).write(path)
    assert_same(reference_offsets(make_run(STARS), CONFIG, path).compute(), compute(table=path))


def test_building_the_graph_reads_nothing(tmp_path):
    path = tmp_path / "reference.fits"
    Table(TABLE).write(path)
    reference = ReferenceCatalog.open(path)
    path.unlink()
    first = reference_offsets(make_run(STARS), CONFIG, reference)
    assert len(dict(first.dask)) < 100
    second = reference_offsets(make_run(STARS), CONFIG, pickle.loads(pickle.dumps(reference)))
    assert first.key == second.key
    assert first.key != reference_offsets(make_run(STARS), fine(), reference).key
    with pytest.raises(FileNotFoundError):
        first.compute()


def test_a_sample_in_parts_has_all_pixels_once():
    config = fine(reference_pixelization_n_pixels=10)
    sample = sample_pixels(make_run(STARS).standard_stars, BANDS, config)
    parts = [sample.part(n, 4) for n in range(4)]
    for name in ("pixels", "ra", "reach", "vectors", "magnitudes"):
        together = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_array_equal(together, getattr(sample, name))
    assert [part.starts[-1] for part in parts] == [len(part.vectors) for part in parts]


# What can be wrong


def test_no_pixel_with_enough_stars_is_an_error_with_the_counts():
    config = CONFIG.replace(reference_pixelization_min_stars=5000)
    ngood = STARS["ngood"].copy()
    ngood[:100, 1] = 0
    with pytest.raises(ValueError, match="min_stars") as caught:
        compute(changed(STARS, ngood=ngood), config=config)
    text = str(caught.value)
    for said in ("nside 64", "5000 stars", "of 3000 stars", "2900 have", "(g 3000, r 2900)"):
        assert said in text
    assert "pixels, at most " in text


def test_no_star_at_all_is_the_same_error():
    ngood = np.zeros_like(STARS["ngood"])
    with pytest.raises(ValueError, match="0 have a place .* in 0 pixels, at most 0 in one"):
        compute(changed(STARS, ngood=ngood))


def test_a_band_without_enough_matches_is_an_error_with_the_counts():
    table = changed(TABLE, r_flux=np.where(np.arange(3000) < 2900, np.nan, TABLE["r_flux"]))
    with pytest.raises(ValueError, match="none of 4 pixels has the 50 matches .* bands r") as e:
        compute(table=table)
    assert "at most" in str(e.value)
    assert " g " not in str(e.value)


def test_a_reference_of_another_place_is_such_an_error():
    table = changed(TABLE, ra=TABLE["ra"] * 0 + 180)
    with pytest.raises(ValueError, match=r"g \(at most 0 of .* 0 reference .*does the reference"):
        compute(table=table)


def test_an_absent_band_is_an_error_unless_a_color_term_maps_it():
    table = {name.replace("g_", "G_"): values for name, values in TABLE.items()}
    run = make_run(STARS)
    with pytest.raises(MissingBandError, match=r"no magnitudes of g \(g_flux, g_fluxErr\)"):
        reference_offsets(run, CONFIG, table)
    terms = {"g": ColorTerm(primary="G", secondary="y")}
    with pytest.raises(MissingBandError, match=r"no magnitudes of y .* it has G, r.*color_terms"):
        reference_offsets(run, CONFIG.replace(color_terms=terms), table)
    terms = {"g": ColorTerm(primary="G", secondary="r")}
    found = compute(table=table, config=CONFIG.replace(color_terms=terms))
    assert found.offsets == compute().offsets


def test_a_color_term_of_no_band_is_a_warning():
    terms = {"G": ColorTerm(primary="g", secondary="r")}
    with pytest.warns(ReferenceWarning, match="color terms of G are not used: .* has g, r"):
        reference_offsets(make_run(STARS), CONFIG.replace(color_terms=terms), TABLE)


def test_positions_that_are_none_are_left_out_with_a_warning():
    stars = changed(STARS, coord_ra=STARS["coord_ra"].copy())
    stars["coord_ra"][1500:1503] = np.nan, np.inf, np.nan
    table = changed(TABLE, dec=TABLE["dec"].copy())
    table["dec"][5:7] = np.nan, -9999
    with pytest.warns(ReferenceWarning) as caught:
        found = compute(stars, table)
    assert found.warnings == (
        "the reference catalog: 2 stars without a position are left out",
        "the standard stars: 3 stars without a position are left out",
    )
    assert [str(w.message) for w in caught] == [*found.warnings]
    assert found.offsets == pytest.approx(compute().offsets, abs=1e-3)


def test_a_large_offset_is_named():
    other = {name: TABLE[name] * 3631 for name in ("g_flux", "g_fluxErr")}
    with pytest.warns(
        ReferenceWarning, match=r"offsets of g -8.\d\d mag are larger than 3"
    ) as caught:
        found = compute(table=TABLE | other)
    assert found.warnings == (str(caught[0].message),)
    assert found["g"] == pytest.approx(OFFSETS["g"] - 2.5 * np.log10(3631), abs=0.01)


def test_a_run_without_stars_or_reference_says_so():
    with pytest.raises(ValueError, match="no reference catalog; open it with"):
        reference_offsets(make_run(STARS), CONFIG)
    visits = {"visit": [1], "physicalFilter": ["SIM-G"], "scaling": [[1.0]]}
    with pytest.raises(ValueError, match="no standard stars to compare"):
        reference_offsets(FgcmRun(visits=visits), CONFIG, TABLE)


def test_healpix_says_what_it_needs(monkeypatch):
    monkeypatch.setitem(sys.modules, "hpgeom", None)
    with pytest.raises(ImportError, match=r"pip install 'skyfold\[healpix\]'"):
        pixel_of(1.0, 1.0, 64)


# Pictures


@pytest.mark.slow
def test_the_picture_has_a_map_and_a_histogram_for_each_band(tmp_path):
    pytest.importorskip("matplotlib")
    found = compute(config=fine(reference_pixelization_n_pixels=10))
    figure = found.plot(tmp_path / "offsets.png")
    assert (tmp_path / "offsets.png").read_bytes().startswith(b"\x89PNG")
    maps = [ax for ax in figure.axes if ax.get_xlabel() == "RA (deg)"]
    assert [ax.get_title()[:2] for ax in maps] == ["g:", "r:"]
    drawn = maps[0].collections[-1]
    rows = found.pixels[(found.pixels["band"] == "g") & found.pixels["used"]]
    np.testing.assert_allclose(drawn.get_array(), 1e3 * (rows["zero_point"] - found["g"]))
    for path, row in zip(drawn.get_paths(), rows, strict=True):
        x, y = path.vertices.mean(axis=0)
        assert abs((x - row["ra"] + 180) % 360 - 180) < 0.1
        assert abs(y - row["dec"]) < 0.1
    left, right = maps[0].get_xlim()
    assert 2 < left - right < 5  # about right ascension 0, east to the left
    counts = [ax for ax in figure.axes if "difference" in ax.get_xlabel()]
    np.testing.assert_array_equal(counts[0].patches[0].get_data().values, found.residuals["g"][0])


@pytest.mark.slow
def test_a_picture_of_the_whole_sky(tmp_path):
    pytest.importorskip("matplotlib")
    found = compute()
    rng = np.random.default_rng(0)
    pixels = found.pixels.copy()
    pixels["pixel"] = rng.integers(0, 12 * 64**2, len(pixels))
    pixels["ra"], pixels["dec"] = center(np.asarray(pixels["pixel"]), 64)
    pixels["used"][:2] = False
    figure = replace(found, pixels=pixels).plot()
    figure.savefig(tmp_path / "sky.pdf")
    poor, used = figure.axes[0].collections
    assert len(poor.get_offsets()) == 1
    assert len(used.get_offsets()) == len(pixels) / 2 - 1
