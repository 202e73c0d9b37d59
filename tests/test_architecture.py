"""Imports point one way, each foreign library has its door, and modules stay small."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src"
MODULES = {
    ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(SOURCE.rglob("*.py"))
}

FLOORS = [
    {
        "bounds",
        "errors",
        "interrupts",
        "printable",
        "json_text",
        "progress",
        "randomness",
        "shipped",
        "threads",
    },
    {"files", "registry"},
    {"graph", "lm", "runs", "terminal", "objectives"},
    {"corpora", "privacy"},
    {"prompts"},
    {"training", "evaluation"},
    {"federation", "baselines", "assistant", "report"},
    {"kge"},
    {"config"},
    {"pipeline"},
    {"studies"},
    {"api"},
    {"cli"},
    {"__main__"},
]
FLOOR_BY_ROOM = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

DOORS = {
    "rdflib": {
        "pkgllm.graph.jsonld",
        "pkgllm.graph.personal_document",
        "pkgllm.graph.public_facts",
        "pkgllm.graph.rdf_nodes",
        "pkgllm.graph.rdf_text",
        "pkgllm.graph.record_reader",
        "pkgllm.graph.record_triples",
        "pkgllm.graph.validation",
    },
    "pyshacl": {"pkgllm.graph.validation"},
    "rapidfuzz": {"pkgllm.assistant.linking"},
    "flwr": {"pkgllm.federation.flower"},
    "ray": {"pkgllm.federation.flower.ray.runtime", "pkgllm.federation.flower.ray.signals"},
    "opacus": {"pkgllm.privacy"},
    "pykeen": {"pkgllm.kge"},
    "pydantic": {"pkgllm.config", "pkgllm.runs.records", "pkgllm.studies"},
    "yaml": {"pkgllm.config"},
    "cryptography": {"pkgllm.federation.flower.deployment.certificates"},
    "typer": {"pkgllm.cli"},
    "rich": {"pkgllm.report.to_terminal", "pkgllm.terminal"},
    "datasets": {"pkgllm.corpora.hub", "pkgllm.training.trl_engine"},
    "pyarrow": {"pkgllm.prompts.group_store"},
    "matplotlib": {"pkgllm.report.drawing", "pkgllm.report.plots"},
    # Our events go through torch's writer, which needs it; only tests read them.
    "tensorboard": set(),
    "trl": {"pkgllm.training.trl_engine"},
}


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def imports(module: str, *, heavy_too: bool = True) -> Iterator[str]:
    """Names of what a module imports; with ``heavy_too`` also inside functions, never for types."""
    tree = ast.parse(MODULES[module].read_text())
    for_types = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for child in ast.walk(node)
    }
    for node in ast.walk(tree) if heavy_too else tree.body:
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            assert node.module is not None
            for alias in node.names:
                deeper = f"{node.module}.{alias.name}"
                yield deeper if deeper in MODULES else node.module


def internal(module: str) -> set[str]:
    return {name for name in imports(module) if name.startswith("pkgllm.")}


@pytest.mark.parametrize("module", [name for name in MODULES if "." in name])
def test_imports_point_to_the_floors_below(module: str) -> None:
    own = room_of(module)
    for imported in internal(module):
        other = room_of(imported)
        if other != own:
            assert FLOOR_BY_ROOM[other] < FLOOR_BY_ROOM[own], f"{module} imports {imported}"


SUBROOMS = {
    "evaluation": ["", "ranking", "lists"],
    "federation": ["", "algorithms", "flower", "flower.deployment", "flower.ray"],
    "kge": ["", "embeddings"],
    "lm": ["", "lanes"],
    "pipeline": ["", "deployment"],
    "privacy": ["", "units"],
    "prompts": ["", "partition"],
}
"""The order inside each room: a sub-room may import those before it; the room's own modules are
the empty name."""


def subroom_of(module: str) -> str:
    inner = module.split(".")[2:]
    package = MODULES[module].name == "__init__.py"
    return ".".join(inner if package else inner[:-1])


def test_the_order_inside_rooms_names_every_subroom() -> None:
    subrooms: dict[str, set[str]] = {}
    for module in MODULES:
        subrooms.setdefault(room_of(module), set()).add(subroom_of(module))
    divided = {room: names for room, names in subrooms.items() if names != {""}}
    assert divided == {room: set(names) for room, names in SUBROOMS.items()}


@pytest.mark.parametrize("room", SUBROOMS)
def test_imports_point_one_way_inside_a_room(room: str) -> None:
    order = SUBROOMS[room]
    for module in (name for name in MODULES if room_of(name) == room):
        for imported in internal(module):
            if room_of(imported) == room:
                assert order.index(subroom_of(imported)) <= order.index(subroom_of(module)), (
                    f"{module} imports {imported}"
                )


@pytest.mark.slow
def test_no_cycle() -> None:
    TopologicalSorter({module: internal(module) for module in MODULES}).prepare()


@pytest.mark.parametrize("module", MODULES)
def test_each_library_has_its_door(module: str) -> None:
    for imported in imports(module):
        allowed = DOORS.get(imported.split(".")[0])
        if allowed is not None:
            assert any(module == door or module.startswith(f"{door}.") for door in allowed), (
                f"{module} imports {imported}"
            )


KNOW_THE_CONFIGURATION = {"api", "cli", "pipeline", "studies"}


@pytest.mark.slow
@pytest.mark.parametrize("module", [m for m in MODULES if room_of(m) not in KNOW_THE_CONFIGURATION])
def test_only_pipeline_studies_and_cli_know_the_configuration(module: str) -> None:
    if room_of(module) != "config":
        assert not any(name.startswith("pkgllm.config") for name in internal(module))


@pytest.mark.slow
def test_the_engine_needs_neither_flower_nor_rdf() -> None:
    def reached(module: str, seen: set[str]) -> set[str]:
        for name in internal(module) - seen:
            seen.add(name)
            reached(name, seen)
        return seen

    engine = [m for m in MODULES if room_of(m) in {"training", "objectives", "lm", "prompts"}]
    for module in engine:
        rooms = {room_of(name) for name in reached(module, set())}
        assert rooms <= {
            "training",
            "objectives",
            "lm",
            "prompts",
            "privacy",
            "corpora",
            "graph",
            "bounds",
            "errors",
            "files",
            "randomness",
            "registry",
            "shipped",
        }, module
        assert not reached(module, set()) & DOORS["rdflib"]


@pytest.mark.parametrize("module", MODULES)
def test_modules_stay_under_four_hundred_lines(module: str) -> None:
    assert len(MODULES[module].read_text().splitlines()) <= 400


@pytest.mark.parametrize(
    "module",
    [
        "pkgllm.cli.app",
        "pkgllm.cli.chat",
        "pkgllm.cli.options",
        "pkgllm.cli.pkg",
        "pkgllm.cli.privacy",
    ],
)
def test_the_command_line_starts_light(module: str) -> None:
    at_start = set(imports(module, heavy_too=False))
    assert {name.split(".")[0] for name in at_start} <= {
        "collections",
        "dataclasses",
        "datetime",
        "functools",
        "contextlib",
        "inspect",
        "logging",
        "sys",
        "pathlib",
        "typing",
        "click",
        "typer",
        "pkgllm",
    }
