"""The public API, as docs/api.md and the notebook show it."""

import re
import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import pkgllm
from pkgllm.errors import RunError

DOCS = Path(__file__).parents[1] / "docs"
PERSON = Path(__file__).parents[1] / "data" / "domains"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a working folder that holds one person's graph of the small world."""
    from pkgllm.config.load import load_config
    from pkgllm.graph.rdf import write_graph
    from pkgllm.pipeline.build import read_corpus

    graph = read_corpus(load_config("quickstart.yaml")).graphs[0]
    write_graph(graph, tmp_path / "me.jsonld")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_the_page_of_the_api_runs(place: Path) -> None:
    text = (DOCS / "api.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "docs/api.md", "exec"), names)
    run = names["run"]
    assert isinstance(run, pkgllm.Run)
    frame = run.to_frame()
    assert set(frame.columns) == {"clients", "model", "metric", "value", "low", "high"}
    assert "<table" in run._repr_html_()
    assert r"\toprule" in run.to_latex()
    assert run.policy().active_adapter == "default"
    assert (place / "runs" / "study" / "summary.json").is_file()


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"config\.yaml is missing"):
        pkgllm.load_run(tmp_path)


def test_every_public_name_is_there() -> None:
    assert set(dir(pkgllm)) == set(pkgllm.__all__)
    for name in pkgllm.__all__:
        assert getattr(pkgllm, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'trane'"):
        getattr(pkgllm, "trane")  # noqa: B009  # the name is the point


@pytest.mark.slow
def test_the_notebook_runs(place: Path) -> None:
    source = DOCS / "notebooks" / "small_world.ipynb"
    shutil.copy(source, place)
    notebook = nbformat.read(place / source.name, as_version=4)  # type: ignore[no-untyped-call]
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(place)}}).execute()
    shown = [out for cell in notebook.cells for out in cell.get("outputs", [])]
    assert any("text/html" in out.get("data", {}) for out in shown)
    assert not any(out.output_type == "error" for out in shown)
