import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from helpers.plugins import write_plugin
from pkgllm.errors import ConfigError
from pkgllm.registry import Choice, Registry, UnknownChoiceError

BRUSHES = """
from dataclasses import dataclass
from typing import Literal

from pkgllm.registry import Choice


@dataclass(frozen=True, slots=True, kw_only=True)
class Broom(Choice):
    name: Literal["broom"] = "broom"


stick = "not a class"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Brush(Choice):
    """Paints."""

    name: Literal["brush"] = "brush"


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry[Choice]:
    """Return a registry with a choice of ours, three of a package, and one that it breaks."""
    plugin = write_plugin(
        tmp_path / "site",
        {"brooms": BRUSHES, "ruined": "import no_such_module_anywhere\n"},
        {
            "pkgllm.tools_of_a_test": {
                "broom": "brooms:Broom",
                "brush": "brooms:Broom",
                "stick": "brooms:stick",
                "mop": "brooms:Broom",
                "ruin": "ruined:Ruin",
            }
        },
    )
    monkeypatch.syspath_prepend(plugin)
    return Registry("tool", "pkgllm.tools_of_a_test", {"brush": f"{__name__}:Brush"})


def test_a_package_adds_choices_and_replaces_none(tools: Registry[Choice]) -> None:
    assert list(tools) == ["brush", "broom", "stick", "mop", "ruin"]
    assert tools["broom"]().name == "broom"
    assert tools["brush"] is Brush


def test_an_unknown_name_is_answered_with_the_known_ones(tools: Registry[Choice]) -> None:
    with pytest.raises(
        UnknownChoiceError,
        match=r'^tool must be one of brush, broom, stick, mop, ruin, got "broon" \(did you mean',
    ):
        tools["broon"]


def test_a_broken_package_is_named_and_ignored_where_it_is_not_used(
    tools: Registry[Choice],
) -> None:
    assert "ruin" in tools
    assert [choice().name for choice in tools.usable()] == ["brush", "broom"]
    with pytest.raises(
        ConfigError,
        match=r"^tool ruin: the package tiny-plugin that provides it cannot be imported: "
        r"ModuleNotFoundError: No module named 'no_such_module_anywhere'; repair or remove",
    ):
        tools["ruin"]
    with pytest.raises(ConfigError, match=r"^tool stick: the package tiny-plugin must provide a "):
        tools["stick"]
    with pytest.raises(ConfigError, match=r"^tool mop: .* must give Broom this name, got 'broom'"):
        tools["mop"]


def test_importing_the_package_imports_nothing_heavy() -> None:
    heavy = ["torch", "transformers", "flwr", "numpy", "pydantic"]
    code = f"import sys, pkgllm; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
