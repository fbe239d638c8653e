"""Plain HTML for what people see in a notebook."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from html import escape

import numpy as np

from .picture import gray, matplotlib, stretch, thinned

__all__ = ["facts_table", "thumbnail"]


def facts_table(title: str, facts: Iterable[tuple[str, str]], picture: str = "") -> str:
    """Return a title, a picture and a table of facts as HTML, for notebooks.

    Parameters
    ----------
    title : str
    facts : iterable of (str, str)
        Name and value of each; plain text.
    picture : str, optional
        HTML, such as that of `thumbnail`.

    Examples
    --------
    >>> facts_table("Cell", [("index", "3")])  # doctest: +ELLIPSIS
    "<div><b>Cell</b><table><tr><th style='text-align:left'>index</th>...</table></div>"
    """
    rows = "".join(
        f"<tr><th style='text-align:left'>{escape(name)}</th>"
        f"<td style='text-align:left'>{escape(str(value))}</td></tr>"
        for name, value in facts
    )
    return f"<div><b>{title}</b>{picture}<table>{rows}</table></div>"


def thumbnail(image: np.ndarray) -> str:
    """Return a small picture of an image as an HTML ``<img>``.

    Parameters
    ----------
    image : (ny, nx) array
        Shown with y upwards on an asinh stretch between its 1 and 99.5 percentiles. What is not
        finite is blue.

    Returns
    -------
    str
        An embedded PNG of at most 256 pixels on a side; without matplotlib a line that says what
        to install.

    Examples
    --------
    >>> thumbnail(np.eye(20))[:31]
    '<img src="data:image/png;base64'
    """
    try:
        imsave = matplotlib("matplotlib.image").imsave
    except ImportError as error:
        return f"<p><i>{escape(str(error))}</i></p>"
    pixels, _ = thinned(image, 256)
    colors = gray()(stretch(pixels)(np.ma.masked_invalid(pixels)), bytes=True)
    file = io.BytesIO()
    imsave(file, colors, format="png", origin="lower")
    code = base64.b64encode(file.getvalue()).decode("ascii")
    height, width = pixels.shape
    zoom = max(1, 128 // max(width, height))
    return (
        f'<img src="data:image/png;base64,{code}" width="{width * zoom}" height="{height * zoom}" '
        f'alt="image" style="image-rendering: pixelated">'
    )
