import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "count_partitions.py"
PAGE = ROOT / "docs" / "partitions.md"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("count_partitions", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_the_table_is_the_one_on_the_page(
    script: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main([]) == 0
    table = capsys.readouterr().out
    assert len(table.splitlines()) == 2 + len(script.PARTITIONS)
    assert table in PAGE.read_text(encoding="utf-8")


def test_a_configuration_that_is_not_there(
    script: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main(["--config", "quikstart.yaml"]) == 2
    assert "count_partitions: no configuration quikstart.yaml" in capsys.readouterr().err
