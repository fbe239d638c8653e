"""The map of the house: a module imports only what stands on its own floor or above.

Every import counts, those inside of functions and for type checking too.
"""

import ast
from graphlib import CycleError, TopologicalSorter
from importlib.util import resolve_name
from pathlib import Path

import pytest

from tests.conftest import CHECKOUT

HOUSE = {
    "mapreduce": """
        version.py optional.py units.py
        picture.py html.py
        exposure/
        display.py simulate.py
        grid/
        report.py
        mappers/ reducers/
        run/
        io/
        cli.py
    """,
    "calibration": """
        texts.py search.py
        tables/
        config/ fields/ atmosphere/ camera/ photocalib/ sky/
        run/
        reference/ stars/ simulate/ display.py
        products/
        sources/ repeatability/
        cli.py
    """,
}


def modules(root, package):
    """Return the modules of a package by name, its own face among them."""
    paths = sorted(Path(root, package).rglob("*.py"))
    names = (".".join(path.relative_to(root).with_suffix("").parts) for path in paths)
    return {name.removesuffix(".__init__"): path for name, path in zip(names, paths, strict=True)}


def imports(name, path):
    """Yield what a module imports, as (module, what of it or None), by absolute names."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            base = resolve_name(base, package) if node.level else base
            yield from ((base, alias.name) for alias in node.names)


def arrows(paths):
    """Return for each module which of the others it imports."""
    graph = {}
    for name, path in paths.items():
        found = ((m, f"{m}.{part}") for m, part in imports(name, path))
        graph[name] = {part if part in paths else m for m, part in found} & paths.keys()
    return graph


def circle(graph):
    """Return a circle as text, if there is one."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return " <- ".join(error.args[1])
    return None


def faults(root, package, house):
    """Return what is wrong with a package's imports, in words."""
    level = {room: n for n, floor in enumerate(house.split("\n")) for room in floor.split()}
    paths = modules(root, package)
    graph = arrows(paths)
    del paths[package]  # the face of all, which imports from every floor
    rooms = {name: room_of(path.relative_to(Path(root, package))) for name, path in paths.items()}
    homeless = [f"{name} stands on no floor" for name in paths if rooms[name] not in level]
    if homeless:
        return homeless
    inner = [(a, b) for a in paths for b in sorted(graph[a] & paths.keys())]
    found = [
        f"{one} imports {other}, which stands below it"
        for one, other in inner
        if level[rooms[other]] > level[rooms[one]]
    ]
    beside = {room: set() for room in level}
    for one, other in inner:
        beside[rooms[one]] |= {rooms[other]} - {rooms[one]}
    return found + [f"a circle: {c}" for c in map(circle, (graph, beside)) if c]


def room_of(path):
    """Return what stands on a floor: a folder, or a file at the top."""
    first, *rest = path.parts
    return f"{first}/" if rest else first


@pytest.mark.parametrize("package", HOUSE)
def test_imports_go_upward(package):
    assert faults(CHECKOUT, package, HOUSE[package]) == []


@pytest.mark.parametrize("package", HOUSE)
def test_the_map_shows_nothing_that_is_gone(package):
    for room in HOUSE[package].split():
        assert (CHECKOUT / package / room).exists(), room


def test_mapreduce_needs_nothing_of_calibration():
    for name, path in modules(CHECKOUT, "mapreduce").items():
        assert "calibration" not in {m.partition(".")[0] for m, _ in imports(name, path)}, name


@pytest.mark.parametrize("package", HOUSE)
def test_faces_of_folders_are_docstrings(package):
    faces = set((CHECKOUT / package).glob("*/**/__init__.py"))
    faces -= {CHECKOUT / "mapreduce" / "mappers" / "__init__.py"}  # from which users import
    for path in faces:
        (docstring,) = ast.parse(path.read_text()).body
        assert isinstance(docstring.value.value, str), path


# The rules themselves


@pytest.fixture
def write(tmp_path):
    def write(**files):
        for name, text in {"__init__": "from .cli import main", **files}.items():
            path = tmp_path / "house" / f"{name.replace('__in__', '/')}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return faults(tmp_path, "house", "top.py\nrooms/\ncli.py")

    return write


ROOMS = {
    "top": "import math",
    "rooms__in__one": "from ..top import x",
    "rooms__in__two": "from . import one\nfrom house.top import x",
    "cli": "from .rooms import two",
}


def test_a_tidy_house(write):
    assert write(**ROOMS) == []


@pytest.mark.parametrize(
    "text",
    [
        "from house import cli",
        "import house.cli",
        "def f():\n    from ..cli import main",
        "if TYPE_CHECKING:\n    from ..cli import main",
    ],
)
def test_an_arrow_that_points_down(write, text):
    first, *circles = write(**ROOMS | {"rooms__in__one": text})
    assert first == "house.rooms.one imports house.cli, which stands below it"
    assert len(circles) == 2  # of modules, and of what stands on the floors


def test_a_circle_in_a_room(write):
    (fault,) = write(**ROOMS | {"rooms__in__one": "from .two import y"})
    assert fault.startswith("a circle: ")
    assert {"house.rooms.one", "house.rooms.two"} <= set(fault.split())


def test_a_circle_by_way_of_the_face(write):
    (fault,) = write(**ROOMS | {"rooms__in__one": "from house import main"})
    assert fault.startswith("a circle: ")


def test_a_module_on_no_floor(write):
    assert write(**ROOMS, attic="") == ["house.attic stands on no floor"]
