from pathlib import Path

import numpy as np
import pytest

from helpers.run_files import read_json
from helpers.tiny_corpus import CLIENTS, tiny_experiment
from pkgllm.errors import ConfigError
from pkgllm.pipeline.canaries import train_with_canaries
from pkgllm.privacy.canary_results import canary_results
from pkgllm.progress import Silent
from pkgllm.prompts.canaries import Canary

pytest_plugins = ["helpers.finished_runs"]

DELTA = 1e-3


def canaries(included: list[bool], repeats: int = 1) -> list[Canary]:
    return [
        Canary(number, "00", f"a{number}", f"b{number}", repeats, each)
        for number, each in enumerate(included)
    ]


def test_results_by_hand() -> None:
    included = [number % 2 == 0 for number in range(20)]
    drawn = [*canaries(included), *canaries(included, repeats=5)]
    # Once put in, nothing shows; five times, everything does.
    scores = np.array([*[float(number // 2) for number in range(20)], *map(float, included)])
    once, often = canary_results(drawn, scores, delta=0.0)
    assert (once.repeats, once.num_canaries, once.num_included) == (1, 20, 10)
    assert (once.auroc, once.one_run_epsilon, once.clopper_pearson_epsilon) == (0.5, 0.0, 0.0)
    assert (often.repeats, often.auroc, often.true_positive_rate) == (5, 1.0, 1.0)
    # 20 of 20 at a twelfth of 5 %, as six numbers of guesses and two bounds are tried.
    accuracy = (0.05 / 2 / 6) ** (1 / 20)
    assert often.one_run_epsilon == pytest.approx(np.log(accuracy / (1 - accuracy)), rel=0.3)


def test_coins_that_all_fell_alike_say_nothing() -> None:
    with pytest.raises(ConfigError, match="all coins fell alike; ask for more"):
        canary_results(canaries([True, True]), np.zeros(2), delta=0.1)


def test_a_run_of_many_adapters_is_refused(
    data: Path, tiny_base_folder: Path, tmp_path: Path
) -> None:
    config = tiny_experiment(data, tiny_base_folder, mode={"name": "local", "rounds": 1})
    with pytest.raises(ConfigError, match="one; use federated or centralized"):
        train_with_canaries(
            config, tmp_path / "run", Silent(), count_by_repeats={1: 4}, delta=DELTA
        )
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_what_was_put_in_often_is_found_and_what_was_not_put_in_is_not(
    data: Path, tiny_base_folder: Path, tmp_path: Path
) -> None:
    config = tiny_experiment(
        data,
        tiny_base_folder,
        objective={"name": "sft"},
        adapter={"lora_rank": 8, "lora_alpha": 32.0},
        training={"learning_rate": 0.01, "local_steps": 25, "groups_per_step": 8},
        mode={"name": "centralized", "rounds": 4, "cohort_size": 1},
    )
    path = tmp_path / "run"
    rare, frequent = train_with_canaries(
        config, path, Silent(), count_by_repeats={1: 30, 25: 30}, delta=DELTA
    )
    assert frequent.auroc > 0.9
    assert frequent.auroc > rare.auroc
    assert frequent.one_run_epsilon > 0
    written = read_json(path / "canary_results.json")
    assert [row["auroc"] for row in written["canaries"]] == [rare.auroc, frequent.auroc]
    listed = read_json(path / "canaries.json")
    assert len(listed) == 60
    assert {row["client"] for row in listed} <= set(CLIENTS)
    # Nobody's examples are left lying about.
    assert not list(path.glob("*.arrow"))


@pytest.mark.slow
def test_a_federation_carries_canaries_too(
    data: Path, tiny_base_folder: Path, tmp_path: Path
) -> None:
    # With an objective for which the server computes something in each round.
    objective = {"name": "kto", "kl_baseline": "public"}
    config = tiny_experiment(data, tiny_base_folder, objective=objective)
    (found,) = train_with_canaries(
        config, tmp_path / "run", Silent(), count_by_repeats={5: 20}, delta=DELTA
    )
    assert 0 <= found.auroc <= 1
    assert 0 < found.num_included < found.num_canaries == 20
    assert (tmp_path / "run" / "adapter").is_dir()
