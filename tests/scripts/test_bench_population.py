import importlib.util
import json
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pkgllm.federation.cohort import sample_cohort
from pkgllm.objectives.kto import Kto
from pkgllm.prompts.group_store import GroupStore
from pkgllm.training.batches import branches_of, draw_batches
from pkgllm.training.lane_passes import branch_tokens
from pkgllm.training.local import LocalSteps

SCRIPT = Path(__file__).parents[2] / "scripts" / "bench_population.py"
KTO = Kto(beta=0.1, desirable_weight=1, undesirable_weight=1, nll_weight=0)


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_population", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # A dataclass looks its own module up.
    sys.modules["bench_population"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def eight(script: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("groups") / "clients-8.arrow"
    script.make_store(8, path)
    return path


def test_a_store_holds_everybody_with_the_groups_that_training_builds(
    script: ModuleType, eight: Path, tmp_path: Path
) -> None:
    store = GroupStore.open(eight)
    assert len(store) == 8
    groups = [group for client in store for group in store[client]]
    assert max(len(group.prompt.token_ids) for group in groups) <= 256
    assert {c.source for group in groups for c in group.completions} >= {"liked", "uniform"}
    script.make_store(8, tmp_path / "again.arrow")
    assert (tmp_path / "again.arrow").read_bytes() == eight.read_bytes()


@pytest.mark.slow
def test_the_measured_rounds_are_those_behind_the_warm_up(script: ModuleType, eight: Path) -> None:
    found = script.measure(eight, cohort_size=3, num_rounds=2)
    store = GroupStore.open(eight)
    steps = LocalSteps(local_steps=1, groups_per_step=2)
    expected = [
        sum(
            branch_tokens(branch)
            for client in sample_cohort(list(store), 3, 0, round_num)
            for batch in draw_batches(
                store[client], steps=steps, seed=0, client=client, round_num=round_num
            )
            for branch in branches_of(batch, KTO)
        )
        for round_num in (3, 4)
    ]
    assert [each.tokens for each in found.rounds] == expected
    assert found.clients == 8
    assert found.file_bytes == eight.stat().st_size
    assert all(0 <= each.reference_seconds < each.seconds for each in found.rounds)
    assert found.peak_bytes >= max(each.resident_bytes for each in found.rounds) > 10**8
    assert found.open_seconds > 0
    assert found.start_seconds > 0


@pytest.mark.slow
def test_the_reference_is_timed_where_a_group_is_new(
    script: ModuleType, eight: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "GROUPS_PER_STEP", 16)
    monkeypatch.setattr(script, "WARM_UP", 0)
    found = script.measure(eight, cohort_size=8, num_rounds=2)
    first, second = (each.reference_seconds for each in found.rounds)
    assert first > 0 == second


def test_a_summary_by_hand(script: ModuleType) -> None:
    rounds = tuple(
        script.Round(seconds, reference, tokens, resident)
        for seconds, reference, tokens, resident in (
            (3.0, 1.0, 1000, 50),
            (2.0, 0.0, 4000, 90),
            (9.0, 3.0, 2000, 10**9 + 50),
        )
    )
    measured = script.Measured(
        clients=7,
        file_bytes=2 * 10**9,
        open_seconds=0.25,
        start_seconds=0.5,
        bytes_before=10**8,
        peak_bytes=3 * 10**9,
        rounds=rounds,
    )
    assert measured.summary() == {
        "clients": 7,
        "seconds_of_a_round": 3.0,
        "of_these_reference": 1.0,
        "tokens_of_a_round": 2000,
        # 2 s for 1,000 tokens, 2 s for 4,000, and 6 s for 2,000.
        "seconds_for_1000_tokens": 2.0,
        "peak_gigabytes": 3.0,
        "growth_in_gigabytes": 1.0,
        "gigabytes_before": 0.1,
        "seconds_to_open": 0.25,
        "seconds_to_start": 0.5,
        "file_gigabytes": 2.0,
    }


@pytest.mark.slow
def test_every_size_is_measured_in_a_process_of_its_own(
    script: ModuleType, eight: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    at_hand = Path(shutil.copy(eight, tmp_path))
    written = at_hand.stat().st_mtime_ns
    arguments = ["--folder", str(tmp_path), "--rounds", "1", "--cohort-size", "2"]
    assert script.main([*arguments, "--sizes", "4", "8", "--json"]) == 0
    measured: dict[str, Any] = json.loads(capsys.readouterr().out)
    lines = measured["populations"]
    assert [line["clients"] for line in lines] == [4, 8]
    peaks = [line["peak_gigabytes"] for line in lines]
    assert measured["largest_over_smallest"]["peak_gigabytes"] == max(peaks) / min(peaks)
    assert {path.name for path in tmp_path.iterdir()} == {"clients-4.arrow", "clients-8.arrow"}
    assert at_hand.stat().st_mtime_ns == written, "what is at hand is used"
    script.print_table(measured)
    head, _, clients, *rows = capsys.readouterr().out.splitlines()
    assert head == "| what | 4 | 8 | ratio |"
    assert clients == "| clients | 4 | 8 |  |"
    assert len(rows) == len(lines[0]) - 1


def test_what_cannot_be_measured_is_said(
    script: ModuleType, eight: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "none.arrow"
    assert script.main(["--measure", str(missing)]) == 1
    assert f"bench_population: {missing}: must be a whole store" in capsys.readouterr().err
    assert script.main(["--measure", str(eight), "--cohort-size", "9"]) == 1
    assert "the number of training clients, 8, got 9" in capsys.readouterr().err
    assert script.main(["--make", "1", str(missing)]) == 1
    assert "num_people must be at least 2, got 1" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        script.main(["--rounds", "0"])
    assert "must be at least 1" in capsys.readouterr().err
    assert not missing.exists()
