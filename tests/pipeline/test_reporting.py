import random
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from helpers.run_files import Finished, predictions, read_json
from pkgllm.errors import PkgllmError
from pkgllm.pipeline.comparison import compare
from pkgllm.pipeline.reporting import read_run, write_report
from pkgllm.report.run_report import measure

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


DAMAGES = (b"null", b"[]", b"{}", b'"x"', b"true", b"-1e999", b"1e308", b"9" * 400, b"\xff", b"")


def damaged(path: Path, rng: random.Random) -> None:
    """Put another value where one stands in a file, or cut, flip or repeat bytes of it."""
    content = path.read_bytes()
    values = list(re.finditer(rb'[-0-9.e]+|"[^"]*"|null|true|false|\[[^\[\]]*\]', content))
    place = rng.randrange(len(content))
    match rng.randrange(4):
        case 0 | 1:
            value = rng.choice(values)
            content = content[: value.start()] + rng.choice(DAMAGES) + content[value.end() :]
        case 2:
            content = content[:place]
        case _:
            content = content[:place] + bytes([rng.randrange(256)]) + content[place + 1 :]
    path.write_bytes(content)


def survives(finished: Finished, folder: Path, rng: random.Random) -> bool:
    """Damage one file of a run; say whether it is still reported. Other errors leave here."""
    run = Path(shutil.copytree(finished[1], folder))
    names = ("metrics.jsonl", "timings.jsonl", "results.json", "predictions.jsonl")
    damaged(run / rng.choice((*names, "provenance.json")), rng)
    with suppress(PkgllmError):
        compare([finished[1], run])
    with suppress(PkgllmError):
        write_report(run, folder / "report")
        return True
    return False


@pytest.mark.slow
def test_damaged_files_are_reported_or_named(
    run_in: Callable[[str], Finished], tmp_path: Path
) -> None:
    rng = random.Random(0)
    kept = [survives(run_in("federated"), tmp_path / str(n), rng) for n in range(40)]
    assert 3 < sum(kept) < 37


@pytest.mark.parametrize("value", [[1.0], {}, True, -1e999, 1e308, 10**400, "0.5", None])
def test_a_value_that_is_no_number_is_no_measure(value: object) -> None:
    for name, part in (("bytes_up", None), ("update_norms", "mean")):
        record = {name: value if part is None else {part: value}}
        assert measure(name, part)(record) is None
