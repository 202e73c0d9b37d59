from pathlib import Path

import pytest

from helpers.run_files import Finished, predictions, read_json
from pkgllm.pipeline.reporting import read_run, write_report

pytest_plugins = ["helpers.finished_runs"]

PLOTS = {
    "federated": {"training", "updates", "clients"},
    "centralized": {"training", "clients"},
    "local": {"clients"},
}


@pytest.mark.slow
def test_a_run_in_each_mode_is_reported(finished: Finished, tmp_path: Path) -> None:
    config, path, report = finished
    written, missing = write_report(path, tmp_path / "deep" / "report")
    assert written == tmp_path / "deep" / "report" / "report.md"
    assert len(missing) == 1
    assert "observation.evaluate_every is 0" in missing[0]
    assert {file.stem for file in written.parent.glob("*.svg")} == PLOTS[config.mode.name]
    assert {file.stem for file in written.parent.glob("*.png")} == PLOTS[config.mode.name]
    text = written.read_text(encoding="utf-8")
    for file in written.parent.glob("*.png"):
        assert f"]({file.name})" in text
    assert ("| loss |" in text) == (config.mode.name == "centralized")
    assert ("clients trained alone, 2 rounds each" in text) == (config.mode.name == "local")
    assert all(f"- {note}\n" in text for note in read_json(path / "results.json")["notes"])
    assert report.title in text


def test_clients_own_values_are_those_of_the_predictions(finished: Finished) -> None:
    _, path, report = finished
    own = read_run(path).own
    for model in ("tuned", "base", "popularity"):
        ranks = [row["models"][model]["ranks"] for row in predictions(path)]
        wanted = sorted(sum(1 / rank for rank in of) / len(of) for of in ranks)
        assert own["mrr"][model] == pytest.approx(wanted)
        # Everybody has two queries, so the mean over clients is that over queries.
        mean = sum(own["hits@10"][model]) / 12
        assert mean == pytest.approx(report.results["models"][model]["hits@10"]["value"])
