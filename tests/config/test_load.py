import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pkgllm.config.documents import write_yaml
from pkgllm.config.load import dump_config, find_config, load_config
from pkgllm.errors import ConfigError
from pkgllm.objectives import OBJECTIVES
from pkgllm.objectives.dpo import Dpo
from pkgllm.objectives.kto import Kto
from pkgllm.shipped import presets_folder

GOOD = """\
corpus: {name: small_world}
base_model: {name: base-tiny}
objective: {name: kto, desirable_weight: 2}
training: {learning_rate: 5e-5}
mode: {name: federated, rounds: 2, cohort_size: 2}
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _refused(text: str, *overrides: str) -> list[str]:
    Path("x.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config("x.yaml", overrides)
    assert caught.value.exit_code == 2
    return str(caught.value).splitlines()


def test_a_path_wins_over_the_configs_folder_and_that_over_the_shipped_ones(here: Path) -> None:
    shipped = find_config("quickstart.yaml")
    assert shipped == presets_folder() / "quickstart.yaml"
    (here / "configs").mkdir()
    (here / "configs" / "quickstart.yaml").write_text(GOOD)
    assert find_config("quickstart.yaml") == Path("configs/quickstart.yaml")
    (here / "quickstart.yaml").write_text(GOOD)
    assert find_config("quickstart.yaml") == Path("quickstart.yaml")
    assert find_config(str(here / "quickstart.yaml")) == here / "quickstart.yaml"


@pytest.mark.usefixtures("here")
def test_a_missing_configuration_says_where_it_was_looked_for() -> None:
    with pytest.raises(ConfigError) as caught:
        find_config("fedkot.yaml")
    message = str(caught.value)
    assert message.startswith(
        "no configuration fedkot.yaml (did you mean fedkto.yaml?); looked for"
    )
    assert f"fedkot.yaml, configs/fedkot.yaml, {presets_folder() / 'fedkot.yaml'};" in message
    assert "; shipped are baselines/comp_gcn.yaml, " in message
    assert ", quickstart.yaml, redial-mini.yaml" in message


def test_a_file_is_read_into_the_tree(here: Path) -> None:
    (here / "x.yaml").write_text("\ufeff" + GOOD, encoding="utf-8")
    experiment = load_config("x.yaml", ["adapter.target_modules=[q_proj, v_proj]", "seed=7"])
    assert experiment.objective == Kto(desirable_weight=2.0)
    assert experiment.training.learning_rate == 0.00005
    assert experiment.adapter.target_modules == ("q_proj", "v_proj")
    assert experiment.seed == 7


@pytest.mark.usefixtures("here")
def test_everything_wrong_is_told_at_once_with_its_place() -> None:
    text = GOOD.replace("name: kto", "name: kto, betta: 0.1") + "seed: 1\nseed: fast\n"
    assert _refused(text, "training.learning_rate=fast", "training.epochs=2") == [
        "x.yaml: seed: is on line 6 and again on line 7; keep one",
        'x.yaml: seed: must be a whole number of at least 0, got "fast"',
        "x.yaml: objective.betta: unknown key, got 0.1 (did you mean beta?)",
        '--set training.learning_rate: must be a number above 0, got "fast"',
        "--set training.epochs: unknown key, got 2 (known here: engine, memory_gib, "
        "attention, optimizer, learning_rate, schedule, weight_decay, max_grad_norm, "
        "groups_per_step, local_steps)",
    ]


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("objective.betta=1", "--set objective.betta: unknown key, got 1 (did you mean beta?)"),
        (
            "objective={name: kto, beta: 0}",
            "--set objective: objective.beta: must be a number above 0, got 0",
        ),
        (
            "objective.name=dpo",
            "--set objective.name: objective.desirable_weight: unknown key, got 2 "
            "(it belongs to kto and apo_zero, not to dpo)",
        ),
        (
            "objective={name: dpo, name: sft}",
            "--set objective: objective.name: is on line 1 and again on line 1; keep one",
        ),
        (
            "objective.name=kot",
            f'--set objective.name: must be one of {", ".join(OBJECTIVES)}, got "kot" '
            "(did you mean kto?)",
        ),
        (
            "mode={name: local}",
            "--set mode: mode.rounds: missing, must be a whole number of at least 1",
        ),
        ("seed.x=1", "--set seed.x: unknown key, because seed is a value and has no keys"),
        ("sed.x=1", "--set sed.x: unknown key sed (did you mean seed?)"),
        ("seed", "--set seed: must be KEY=VALUE, for example training.learning_rate=5e-5"),
        ("seed=", "--set seed: must be a whole number of at least 0, got null"),
        (
            "mode.weighting=examples",
            "x.yaml with --set mode.weighting: mode.weighting examples sends private counts; set "
            "privacy.report_private_metrics to mark the run as not private, or use uniform",
        ),
        (
            "split.test_share=0.95",
            "x.yaml with --set split.test_share: split: test_share + validation_share must be "
            "below 1, got 1.05",
        ),
    ],
)
def test_what_an_override_breaks_names_the_override(override: str, line: str) -> None:
    assert _refused(GOOD, override) == [line]


@pytest.mark.usefixtures("here")
def test_another_choice_keeps_the_keys_that_it_knows() -> None:
    Path("x.yaml").write_text(GOOD.replace("desirable_weight: 2", "beta: 0.5"))
    assert load_config("x.yaml", ["objective.name=dpo"]).objective == Dpo(beta=0.5)


@pytest.mark.usefixtures("here")
def test_a_malformed_override_is_told_beside_the_others() -> None:
    assert _refused(GOOD, "seed", "seed=[", "seed=x") == [
        "--set seed: must be KEY=VALUE, for example training.learning_rate=5e-5",
        "--set seed: line 1, column 2: this is not YAML: while parsing a flow node, expected the "
        "node content, but found '<stream end>'",
    ]


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "x.yaml: must hold keys and values, it is empty"),
        ("# nothing\n", "x.yaml: must hold keys and values, it is empty"),
        ("- 1\n- 2\n", "x.yaml: must hold keys and values, got [1, 2]"),
        ("kto", 'x.yaml: must hold keys and values, got "kto"'),
    ],
)
def test_the_top_level_holds_keys(text: str, line: str) -> None:
    assert _refused(text) == [line]


def test_broken_yaml_names_file_line_and_column(here: Path) -> None:
    (here / "x.yaml").write_text(GOOD + "seed: [1\n")
    with pytest.raises(ConfigError, match=r"^x\.yaml: line 7, column 1: this is not YAML: "):
        load_config("x.yaml")


def test_bytes_that_are_no_text_are_refused(here: Path) -> None:
    (here / "x.yaml").write_bytes(b"seed: \xff\n")
    with pytest.raises(ConfigError, match=r"^x\.yaml: must be text in UTF-8"):
        load_config("x.yaml")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_an_unreadable_file_is_told(here: Path) -> None:
    (here / "x.yaml").write_text(GOOD)
    (here / "x.yaml").chmod(0)
    with pytest.raises(ConfigError, match=r"^x\.yaml: cannot be read: Permission denied"):
        load_config("x.yaml")


OVERRIDES = st.fixed_dictionaries(
    {},
    optional={
        "seed": st.integers(min_value=0),
        "objective.beta": st.floats(min_value=1e-300, allow_infinity=False),
        "training.learning_rate": st.floats(min_value=1e-12, max_value=10),
        "clients.unseen_share": st.floats(min_value=0, max_value=0.9),
        "evaluation.max_clients": st.none() | st.integers(min_value=1),
        "groups.negatives.uniform": st.integers(min_value=0, max_value=99),
        "privacy.report_private_metrics": st.booleans(),
    },
)


@pytest.mark.slow
@given(OVERRIDES, st.text(), st.lists(st.text(), max_size=3) | st.just("all-linear"))
def test_a_dumped_tree_loads_back_equal(
    tmp_path_factory: pytest.TempPathFactory,
    overrides: dict[str, object],
    request_text: str,
    target_modules: list[str] | str,
) -> None:
    values = {
        **overrides,
        "prompt.request": request_text,
        "adapter.target_modules": target_modules,
    }
    folder = tmp_path_factory.mktemp("dumped")
    (folder / "x.yaml").write_text(GOOD, encoding="utf-8")
    experiment = load_config(
        str(folder / "x.yaml"), [f"{key}={write_yaml(value)}" for key, value in values.items()]
    )
    assert experiment.prompt.request == request_text
    (folder / "y.yaml").write_text(dump_config(experiment), encoding="utf-8")
    assert load_config(str(folder / "y.yaml")) == experiment


def test_a_dumped_tree_holds_the_defaults() -> None:
    text = dump_config(load_config("quickstart.yaml"))
    assert "lora_rank: 16\n" in text
    assert "negatives:\n    known: 0\n" in text
