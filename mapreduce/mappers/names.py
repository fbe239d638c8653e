"""Mappers by name: the ready-made ones, and others by where they can be imported."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any

from .background import subtract_background
from .filters import gaussian_filter, median_filter
from .mapper import Mapper

__all__ = ["MAPPERS", "describe", "resolve_mapper"]

MAPPERS: dict[str, Mapper] = {
    "background": subtract_background,
    "gaussian": gaussian_filter,
    "median": median_filter,
}


def describe() -> dict[str, str]:
    """Return what each built-in mapper does: the first line of its docstring, by name.

    Examples
    --------
    >>> describe()["gaussian"]
    'Smooth with a round Gaussian.'
    """
    return {
        name: (mapper.__doc__ or "").strip().partition("\n")[0] for name, mapper in MAPPERS.items()
    }


def resolve_mapper(name: str) -> Mapper:
    """Find a mapper by name: a built-in one, or ``package.module:function``.

    Raises
    ------
    ValueError
        If the name is neither.
    ModuleNotFoundError, AttributeError
        If there is no such module, or nothing of that name in it.
    TypeError
        If what has that name is not callable.

    Examples
    --------
    >>> resolve_mapper("median").__name__
    'median_filter'
    >>> resolve_mapper("numpy.linalg:norm").__name__
    'norm'
    """
    if name in MAPPERS:
        return MAPPERS[name]
    module_name, colon, attribute = name.partition(":")
    if not (module_name and colon and attribute):
        raise ValueError(
            f"no mapper {name!r}; the built-in ones are {', '.join(sorted(MAPPERS))}, "
            "and your own is written package.module:function"
        )
    mapper: Any = _module(module_name, name)
    for part in attribute.split("."):
        if not hasattr(mapper, part):
            raise AttributeError(f"mapper {name!r}: there is no {attribute!r} in {module_name}")
        mapper = getattr(mapper, part)
    if not callable(mapper):
        raise TypeError(f"mapper {name!r} is a {type(mapper).__name__}, which cannot be called")
    return mapper


def _module(module_name: str, name: str) -> ModuleType:
    try:
        return import_module(module_name)
    except ModuleNotFoundError as error:
        # Something that the module itself imports may be missing instead: that error stands.
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise ModuleNotFoundError(
            f"mapper {name!r}: there is no module {error.name!r} on the import path",
            name=error.name,
        ) from None
