"""ProductsConfig: from Python, YAML, TOML and texts; every wrong value is named."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from dask.base import tokenize

from calibration.config.config import ColorTerm, ProductsConfig

CONTRACT = {
    "physical_filter_map": {},
    "reference_calibration": False,
    "atmosphere_output": True,
    "zeropoint_output": True,
    "compose_wcs_jacobian": True,
    "apply_mean_chromatic_correction": True,
    "tract_stars": True,
    "reference_pixelization_nside": 64,
    "reference_pixelization_min_stars": 200,
    "reference_min_match": 50,
    "reference_pixelization_n_pixels": 100,
    "reference_match_radius": 0.25,
    "magnitude_error_floor": 0.003,
}
YAML = """
physical_filter_map: {SIM-G: g, SIM-Y: y}
reference_calibration: yes
magnitude_error_floor: 1e-3
color_terms:
  g: {primary: g, secondary: r, c1: -0.02}
seed: 7
"""
TOML = """
reference_calibration = true
magnitude_error_floor = 0.001
seed = 7
[physical_filter_map]
SIM-G = "g"
SIM-Y = "y"
[color_terms.g]
primary = "g"
secondary = "r"
c1 = -0.02
"""


def test_defaults_are_those_of_the_contract():
    assert ProductsConfig().to_dict() | CONTRACT == ProductsConfig().to_dict()


@pytest.mark.parametrize(("suffix", "text"), [("yaml", YAML), ("yml", YAML), ("toml", TOML)])
def test_files(tmp_path, suffix, text):
    path = tmp_path / f"products.{suffix}"
    path.write_text(text)
    config = ProductsConfig.open(path)
    assert config == ProductsConfig(
        physical_filter_map={"SIM-G": "g", "SIM-Y": "y"},
        reference_calibration=True,
        magnitude_error_floor=0.001,
        color_terms={"g": ColorTerm(primary="g", secondary="r", c1=-0.02)},
        seed=7,
    )
    assert config.band("SIM-Y") == "y"
    (tmp_path / "again.yaml").write_text(config.to_yaml())
    again = ProductsConfig.open(tmp_path / "again.yaml")
    assert again == config
    assert pickle.loads(pickle.dumps(again)) == config
    assert tokenize(again) == tokenize(config)
    assert hash(again) == hash(config)
    assert json.loads(json.dumps(config.to_dict())) == config.to_dict()
    (tmp_path / "empty.yaml").write_text("")
    assert ProductsConfig.open(tmp_path / "empty.yaml") == ProductsConfig()


@pytest.mark.parametrize(("suffix", "text"), [("yaml", YAML), ("toml", TOML)])
def test_files_with_the_old_name_of_a_field(tmp_path, suffix, text):
    new, old, both = (tmp_path / f"{name}.{suffix}" for name in ("new", "old", "both"))
    new.write_text(text)
    old.write_text(text.replace("color_terms", "colour_terms"))
    with pytest.warns(FutureWarning, match=rf"old\.{suffix}: colour_terms is now .* color_terms"):
        config = ProductsConfig.open(old)
    assert config == ProductsConfig.open(new)
    empty = "colour_terms: {}\n" if suffix == "yaml" else "[colour_terms]\n"
    both.write_text(f"{text}{empty}")
    with pytest.raises(ValueError, match=rf"both\.{suffix}: there are both color_terms and colour"):
        ProductsConfig.open(both)


def test_overrides():
    config = ProductsConfig(physical_filter_map={"A": "a"}, cycle_number=3).with_overrides(
        [
            "physical_filter_map.B.2=b",
            "color_terms.g={primary: g, secondary: r}",
            "reference_match_radius=1e-1",
            "tract_stars=false",
            "output_format=parquet",
            "cycle_number=null",
            "seed=3",
            "seed=4",
        ]
    )
    assert config.physical_filter_map == {"A": "a", "B.2": "b"}
    assert config.color_terms["g"].c2 == 0
    assert config.reference_match_radius == 0.1
    assert (config.tract_stars, config.output_format) == (False, "parquet")
    assert (config.cycle_number, config.seed) == (None, 4)


WRONG = [
    ("seed", -1, ValueError, "seed is at least 0, got -1"),
    ("seed", 1.5, TypeError, "seed is a whole number, got 1.5"),
    ("seed", True, TypeError, "seed is a whole number, got True"),
    ("tract_stars", 1, TypeError, "tract_stars is true or false, got 1"),
    ("tract_stars", "perhaps", TypeError, "tract_stars is true or false, got 'perhaps'"),
    ("output_format", "hdf5", ValueError, "output_format is fits or parquet, got 'hdf5'"),
    ("sky_map", None, ValueError, "sky_map is rings or healpix, got None"),
    ("reference_pixelization_nside", 60, ValueError, r"is a power of two \(1, 2, 4, ...\), got 60"),
    ("reference_match_radius", 0, ValueError, "reference_match_radius is above 0, got 0"),
    ("reference_match_radius", "far", TypeError, "reference_match_radius is a number, got 'far'"),
    ("magnitude_error_floor", float("nan"), ValueError, "is a finite number, got nan"),
    ("cycle_number", -2, ValueError, "cycle_number is at least 0, got -2"),
    ("physical_filter_map", ["g"], TypeError, r"physical_filter_map is a mapping, got \['g'\]"),
    ("physical_filter_map", {"A": 3}, TypeError, r"physical_filter_map\['A'\] is a text, got 3"),
    ("color_terms", {"g": 0.1}, TypeError, r"color_terms\['g'\] is a mapping with primary"),
    ("color_terms", {"g": {"primary": "g"}}, TypeError, r"color_terms\['g'\]: .*secondary"),
    (
        "color_terms",
        {"g": {"primary": "g", "secondary": "r", "c3": 1}},
        TypeError,
        r"color_terms\['g'\]: there is no field c3; fields: primary, secondary, c0",
    ),
]


@pytest.mark.parametrize(("name", "value", "error", "message"), WRONG)
def test_wrong_values(tmp_path, name, value, error, message):
    with pytest.raises(error, match=message):
        ProductsConfig(**{name: value})
    with pytest.raises(error, match=message):
        ProductsConfig().replace(**{name: value})
    path = tmp_path / "products.yaml"
    path.write_text(json.dumps({name: value}).replace("NaN", ".nan"))
    with pytest.raises(error, match=f"products.yaml: .*{message}"):
        ProductsConfig.open(path)


def test_unknown_fields(tmp_path):
    message = "there is no field colr_terms; did you mean color_terms"
    with pytest.raises(TypeError, match=message):
        ProductsConfig(colr_terms={})
    with pytest.raises(TypeError, match=message):
        ProductsConfig().replace(colr_terms={})
    with pytest.raises(TypeError, match=message):
        ProductsConfig().with_overrides(["colr_terms.g=1"])
    path = tmp_path / "products.toml"
    path.write_text("colr_terms = {}")
    with pytest.raises(TypeError, match=f"products.toml: {message}"):
        ProductsConfig.open(path)
    with pytest.raises(TypeError, match="there is no field x; fields: physical_filter_map, refer"):
        ProductsConfig(x=1)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["seed"], "'seed' is not of the form field=value"),
        (["=3"], "'=3' is not of the form field=value"),
        (["seed.a=3"], "seed has no entries, so there is no seed.a"),
        (["seed={"], "the value of 'seed={' is not valid YAML"),
    ],
)
def test_wrong_overrides(texts, message):
    with pytest.raises(ValueError, match=message):
        ProductsConfig().with_overrides(texts)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "{}", r"a configuration ends in .yaml, .yml, .toml"),
        ("a.yaml", "seed: [", "a.yaml is not valid YAML"),
        ("a.toml", "seed = ", "a.toml is not valid TOML"),
        ("a.yaml", "- seed", r"a.yaml holds \['seed'\]; a configuration is fields and values"),
    ],
)
def test_wrong_files(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        ProductsConfig.open(tmp_path / name)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        ProductsConfig.open(tmp_path / "no.yaml")


def test_bands_and_color_terms():
    with pytest.raises(KeyError, match="physical filter 'U' is not in physical_filter_map; there:"):
        ProductsConfig(physical_filter_map={"A": "a"}).band("U")
    term = ColorTerm(primary="g", secondary="r", c0=0.5, c1=0.25, c2=0.125)
    np.testing.assert_array_equal(term.apply(np.array([20.0, 21.0]), 18.0), [21.5, 23.375])
    with pytest.raises(AttributeError):
        ProductsConfig().seed = 3
