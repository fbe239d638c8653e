import base64
import io

import matplotlib.image
import numpy as np
import pytest

from mapreduce import Exposure
from mapreduce.html import thumbnail


def png_of(html):
    start = html.index("base64,") + len("base64,")
    code = html[start : html.index('"', start)]
    return matplotlib.image.imread(io.BytesIO(base64.b64decode(code)))


def test_thumbnail_has_y_upwards_and_blue_nans():
    image = np.zeros((20, 10))
    image[15:] = 100.0
    image[0, 0] = np.nan
    png = png_of(thumbnail(image))
    assert png.shape[:2] == (20, 10)
    assert png[0, 0, 0] > 0.9
    assert png[-2, 0, 0] < 0.1
    red, _, blue = png[-1, 0, :3]
    assert blue > red + 0.2


def test_thumbnail_of_a_large_image_is_small():
    assert max(png_of(thumbnail(np.eye(1000, 700))).shape[:2]) <= 256


@pytest.mark.parametrize(
    "image",
    [
        np.full((5, 5), np.nan),
        np.full((4, 4), np.inf),
        np.zeros((1, 1)),
        np.full((3, 700), 7e30, np.float32),
        np.array([[-1e308, 1e308]]),
        np.full((3000, 2), 1e308),
        np.arange(6).reshape(2, 3),
        np.eye(4, dtype=bool),
        np.zeros((2, 2), np.uint16),
    ],
)
def test_thumbnail_shows_anything(image):
    assert np.isfinite(png_of(thumbnail(image))).all()


def test_thumbnail_without_matplotlib_says_what_to_install(without_matplotlib):
    assert "pip install &#x27;skyfold[plot]&#x27;" in thumbnail(np.eye(3))


def test_exposure_shows_its_thumbnail():
    exposure = Exposure(np.eye(20))
    assert thumbnail(exposure.image) in exposure._repr_html_()
