"""Packages that not every user needs: imported where they are used."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

__all__ = ["require"]


def require(module: str, message: str) -> ModuleType:
    """Return a module of a package that may not be installed.

    Parameters
    ----------
    module : str
        Full name of the module.
    message : str
        What needs it, and how it is installed.

    Raises
    ------
    ImportError
        With the message, if it is not installed.

    Examples
    --------
    >>> require("math", "sums need math").fsum([1, 2])
    3.0
    >>> require("maths", "sums need maths: pip install maths")
    Traceback (most recent call last):
    ...
    ImportError: sums need maths: pip install maths
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError(message) from error
