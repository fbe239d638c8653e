import io
import sys

import dask.array as da
import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure

from mapreduce.display import before_after, draw_boxes
from mapreduce.exposure.box import Box
from mapreduce.exposure.exposure import Exposure


@pytest.fixture
def exposure():
    rng = np.random.default_rng(0)
    mask = np.zeros((30, 40), int)
    mask[5, 6], mask[7] = 2, 1
    return Exposure(
        rng.normal(size=(30, 40)), mask=mask, origin=(100, 200), meta={"BUNIT": "electron"}
    )


def test_boxes_are_drawn_at_pixel_edges():
    ax = draw_boxes([Box(10, 20, 5, 4)], [Box(8, 18, 9, 8)], box=Box(0, 0, 40, 50))
    outlines = {c.get_label(): c.get_paths()[0].get_extents().bounds for c in ax.collections}
    assert outlines == {
        "exposure": (-0.5, -0.5, 40, 50),
        "expanded box": (7.5, 17.5, 9, 8),
        "core box": (9.5, 19.5, 5, 4),
    }
    assert ax.get_xlim() == (-0.5, 39.5)
    assert ax.get_xlabel() == "x [pixel]"


def test_boxes_lie_on_the_image_in_parent_coordinates(exposure):
    figure = Figure()
    ax = figure.add_subplot()
    assert draw_boxes([Box(110, 210, 5, 5)], ax=ax, image=exposure) is ax
    assert list(ax.images[0].get_extent()) == [99.5, 139.5, 199.5, 229.5]
    figure.savefig(io.BytesIO(), format="png")


def test_boxes_on_an_array_need_its_box():
    with pytest.raises(ValueError, match="image is 3 x 4 but its box is 5 x 4"):
        draw_boxes([Box(0, 0, 2, 2)], image=np.zeros((3, 4)), box=Box(0, 0, 4, 5))


@pytest.mark.slow
def test_before_after_saves_what_it_returns(exposure, tmp_path):
    path = tmp_path / "figure.png"
    figure = before_after(exposure, exposure - 1, path, titles=("raw", "flat"))
    assert matplotlib.image.imread(path).shape[2] == 4
    assert [ax.get_title() for ax in figure.axes[:3]] == ["raw", "flat", "mask"]
    assert figure.axes[3].get_xlabel() == "electron"
    legend = figure.axes[2].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["BAD", "SAT"]


def test_before_after_shows_the_rarest_plane(exposure):
    mask = exposure.mask.copy()
    mask[7, 0] |= 2
    drawn = np.asarray(before_after(exposure, exposure.replace(mask=mask)).axes[2].images[0]._A)
    np.testing.assert_array_equal(drawn[7, 0], drawn[5, 6])
    assert (drawn[7, 1] != drawn[7, 0]).any()
    assert (drawn[0, 0] == 0.96).all()


def test_before_after_takes_lazy_exposures_and_arrays(exposure):
    figure = before_after(exposure.chunk(10), exposure.image)
    assert len(figure.axes) == 4  # two images, two color bars
    before_after(da.zeros((5, 6)), np.full((5, 6), np.nan)).savefig(io.BytesIO(), format="png")


def test_plots_without_matplotlib_say_what_to_install(without_matplotlib, exposure):
    with pytest.raises(ImportError, match=r"pip install 'skyfold\[plot\]'"):
        before_after(exposure, exposure)
    with pytest.raises(ImportError, match=r"pip install 'skyfold\[plot\]'"):
        draw_boxes([Box(0, 0, 2, 2)])


def test_pyplot_is_left_alone(exposure, monkeypatch):
    monkeypatch.delitem(sys.modules, "matplotlib.pyplot", raising=False)
    before_after(exposure, exposure)
    draw_boxes([Box(0, 0, 2, 2)])
    assert "matplotlib.pyplot" not in sys.modules
