import runpy
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_page_is_the_one_that_the_schema_gives() -> None:
    script = runpy.run_path(str(ROOT / "tools" / "make_configuration_docs.py"))
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert page == script["render"](), "run python -m tools.make_configuration_docs"
    assert (
        "| `learning_rate` | a number above 0 | `0.001` | Step size of the first round. |" in page
    )
