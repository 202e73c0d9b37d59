"""The shipped configurations, all of them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pkgllm.config.load import dump_config, load_any_config, load_config
from pkgllm.config.schema import EmbeddingExperiment, Experiment
from pkgllm.errors import ConfigError
from pkgllm.privacy.units.example import ExamplePrivacy
from pkgllm.shipped import presets_folder
from pkgllm.studies.study_plan import load_study
from pkgllm.studies.table_plan import load_table

FOLDER = Path(__file__).parents[1] / "configs"
ALL = sorted(path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*.y*ml"))
STUDIES = [name for name in ALL if name.startswith("studies/")]
TABLES = [name for name in ALL if name.startswith("tables/")]
PRESETS = [name for name in ALL if name not in (*STUDIES, *TABLES)]


EMBEDDINGS = ("comp_gcn", "complex", "hake", "kbgat", "node_piece", "rotate", "tucker")
FEDERATED_EMBEDDINGS = ("hake-fed", "kbgat-fed")


def test_there_are_eighteen() -> None:
    assert presets_folder() == FOLDER
    assert [
        *sorted(f"baselines/{name}.yaml" for name in EMBEDDINGS + FEDERATED_EMBEDDINGS),
        "centralized.yaml",
        "feddpo-dp.yaml",
        "feddpo.yaml",
        "fedkto-dp.yaml",
        "fedkto.yaml",
        "local.yaml",
        "quickstart-dp.yaml",
        "quickstart.yaml",
        "redial-mini.yaml",
    ] == PRESETS


@pytest.mark.parametrize("preset", PRESETS)
def test_it_loads_and_loads_back_equal(preset: str, tmp_path: Path) -> None:
    experiment = load_any_config(preset)
    (tmp_path / "config.yaml").write_text(dump_config(experiment), encoding="utf-8")
    assert load_any_config(str(tmp_path / "config.yaml")) == experiment


@pytest.mark.parametrize("study", STUDIES)
def test_a_study_loads_and_every_run_of_it(study: str) -> None:
    assert load_study(study).runs


@pytest.mark.parametrize("table", TABLES)
def test_a_table_loads_and_every_run_of_it(table: str) -> None:
    rows = load_table(table).table.rows
    assert len(rows) > 15
    assert {len(row.grid) for row in rows} == {0, 3}


def test_the_study_of_aggregators_differs_in_the_strategy_and_what_that_needs() -> None:
    configs = {run.line: run.config for run in load_study("studies/aggregators.yaml").runs}
    first = configs["fedavg"]
    for name, config in configs.items():
        assert isinstance(config, Experiment)
        assert config.mode.name == "federated"
        assert config.mode.strategy.name == name
        assert isinstance(first, Experiment)
        needed = {"optimizer": "sgd", "learning_rate": 0.3} if name == "scaffold" else {}
        training = first.training.model_copy(update=needed)
        assert config == first.model_copy(update={"mode": config.mode, "training": training})


@pytest.mark.parametrize("preset", ALL)
def test_it_says_what_it_is_for(preset: str) -> None:
    lines = (FOLDER / preset).read_text(encoding="utf-8").splitlines()
    comment = [line for line in lines if line.startswith("#")]
    assert lines[: len(comment)] == comment
    assert 1 <= len(comment) <= 2


def _section_paths(tree: object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(tree, dict):
        yield path
        for key, value in tree.items():
            yield from _section_paths(value, (*path, key))


SECTIONS = [
    (preset, path)
    for preset in PRESETS
    for path in _section_paths(yaml.safe_load(dump_config(load_any_config(preset))))
]


# One folder for all examples is meant: each writes its file anew.
@pytest.mark.slow
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30
)
@given(st.sampled_from(SECTIONS), st.from_regex(r"[a-z][a-z_]{0,12}", fullmatch=True))
def test_a_wrong_key_anywhere_is_refused(
    tmp_path: Path, section: tuple[str, tuple[str, ...]], key: str
) -> None:
    preset, path = section
    tree = yaml.safe_load(dump_config(load_any_config(preset)))
    place = tree
    for part in path:
        place = place[part]
    wrong = f"{key}_" if key in place else key
    place[wrong] = 1
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_any_config(str(tmp_path / "wrong.yaml"))
    name = ".".join((*path, wrong))
    assert f"wrong.yaml: {name}: unknown key, got 1" in str(caught.value)
    with pytest.raises(ConfigError, match=rf"^--set {name}: unknown key, got 1"):
        load_any_config(preset, [f"{name}=1"])


@pytest.mark.parametrize(
    ("base", "preset", "part"),
    [
        ("fedkto.yaml", "feddpo.yaml", "objective"),
        ("fedkto.yaml", "centralized.yaml", "mode"),
        ("fedkto.yaml", "local.yaml", "mode"),
        ("fedkto-dp.yaml", "feddpo-dp.yaml", "objective"),
    ],
)
def test_what_is_compared_differs_in_one_part(base: str, preset: str, part: str) -> None:
    first, second = load_config(base), load_config(preset)
    assert getattr(first, part) != getattr(second, part)
    assert first.model_copy(update={part: getattr(second, part)}) == second


def test_the_names_hold_what_they_promise() -> None:
    found = {
        preset: (e.corpus.name, e.base_model.name, e.objective.name, e.mode.name)
        for preset in PRESETS
        if "/" not in preset
        for e in (load_config(preset),)
    }
    assert found == {
        "quickstart.yaml": ("small_world", "base-tiny", "kto", "federated"),
        "quickstart-dp.yaml": ("small_world", "base-tiny", "apo_zero", "federated"),
        "fedkto-dp.yaml": ("redial", "Qwen/Qwen3-0.6B", "apo_zero", "federated"),
        "feddpo-dp.yaml": ("redial", "Qwen/Qwen3-0.6B", "dpo", "federated"),
        "redial-mini.yaml": ("redial", "qwen3-mini", "kto", "federated"),
        "fedkto.yaml": ("redial", "Qwen/Qwen3-0.6B", "kto", "federated"),
        "feddpo.yaml": ("redial", "Qwen/Qwen3-0.6B", "dpo", "federated"),
        "centralized.yaml": ("redial", "Qwen/Qwen3-0.6B", "kto", "centralized"),
        "local.yaml": ("redial", "Qwen/Qwen3-0.6B", "kto", "local"),
    }


@pytest.mark.parametrize("preset", [preset for preset in PRESETS if "-dp" in preset])
def test_a_private_preset_trains_few_values_and_bounds_its_facts(preset: str) -> None:
    config = load_config(preset)
    assert isinstance(config.privacy, ExamplePrivacy)
    assert config.privacy.target_epsilon == 8
    assert config.adapter.freeze_a
    # No client has more groups than this, and delta must be below one among them.
    assert config.privacy.expected_batch_size <= config.groups.max_groups
    assert config.privacy.delta < 1 / config.groups.max_groups
    assert not config.privacy.report_private_metrics


@pytest.mark.parametrize("preset", PRESETS)
def test_it_is_measured_on_the_test_part(preset: str) -> None:
    assert load_any_config(preset).evaluation.part == "test"


@pytest.mark.parametrize("name", EMBEDDINGS + FEDERATED_EMBEDDINGS)
def test_an_embedding_is_asked_what_the_quick_start_is_asked(name: str) -> None:
    own, tuned = load_any_config(f"baselines/{name}.yaml"), load_config("quickstart.yaml")
    assert isinstance(own, EmbeddingExperiment)
    assert own.embedding.name == name.removesuffix("-fed")
    assert (own.mode.name == "federated") == (name in FEDERATED_EMBEDDINGS)
    for part in ("seed", "corpus", "clients", "split", "evaluation"):
        assert getattr(own, part) == getattr(tuned, part)
