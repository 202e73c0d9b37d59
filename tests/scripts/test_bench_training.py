import importlib
import json
import os
import re
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from pkgllm.lm.adapter import load_adapter_state
from pkgllm.lm.base_model import load_base_model
from pkgllm.training.reference import ReferenceColumn
from pkgllm.training.sequential import reference_scorer, score

SCRIPTS = Path(__file__).parents[2] / "scripts"
WAYS = {"TRL", "engine trl", "sequential", "lanes"}


@pytest.fixture
def part(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Import a module below scripts/."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module


@pytest.fixture
def preset(part: Callable[[str], Any]) -> Any:
    """A few short prompts for the smallest model at hand."""
    return part("training_bench.workload").Preset(
        partial(load_base_model, "base-tiny", device="cpu"),
        num_clients=2,
        start_std=0.05,
        prompt_tokens=(20, 40),
    )


@pytest.fixture
def script(part: Callable[[str], Any], preset: Any, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script on a small workload; TRL sends no report where a CI runs."""
    monkeypatch.setenv("CI", "true")
    module = part("bench_training")
    monkeypatch.setitem(module.PRESETS, "cpu", preset)
    assert isinstance(module, ModuleType)
    return module


@pytest.fixture
def workload(part: Callable[[str], Any], preset: Any) -> Any:
    return part("training_bench.workload").make_workload(preset, 2)


@pytest.mark.slow
def test_groups_are_text_of_their_tokens(workload: Any) -> None:
    tokenizer = workload.base.tokenizer
    for group in (group for groups in workload.groups.values() for group in groups):
        assert 20 <= len(group.prompt.token_ids) <= 40
        assert Counter(c.desirable for c in group.completions) == {True: 8, False: 8}
        for completion in group.completions:
            assert 6 <= len(completion.token_ids) <= 10
            text = group.prompt.text + completion.item + tokenizer.eos_token
            found = tokenizer(text)["input_ids"]
            assert found == [*group.prompt.token_ids, *completion.token_ids]


def test_more_clients_leave_the_first_as_they_are(
    part: Callable[[str], Any], preset: Any, workload: Any
) -> None:
    more = part("training_bench.workload").make_workload(preset, 3)
    assert list(more.groups) == [*workload.groups, "client-2"]
    assert all(more.groups[client] == groups for client, groups in workload.groups.items())
    assert len({group for groups in more.groups.values() for group in groups}) == 6


def test_trl_meets_the_mismatched_pairs_of_the_groups(
    part: Callable[[str], Any], workload: Any
) -> None:
    groups = workload.groups["client-0"]
    rows = part("training_bench.trl_way").examples(groups)
    moved_on = [rows["completion"][-1], *rows["completion"][:-1]]
    for group in groups:
        for column, completions in (
            (rows["completion"], group.completions),
            (moved_on, group.mismatched),
        ):
            met = [c for p, c in zip(rows["prompt"], column, strict=True) if p == group.prompt.text]
            assert sorted(met) == sorted(c.item for c in completions)


def test_trl_gets_the_pairs_of_the_objective(part: Callable[[str], Any], workload: Any) -> None:
    groups = workload.groups["client-0"]
    rows = part("training_bench.trl_way").pairs(groups)
    expected = [
        (group.prompt.text, group.completions[place].item, group.completions[place + 1].item)
        for group in groups
        for place in range(0, 16, 2)
    ]
    assert list(zip(rows["prompt"], rows["chosen"], rows["rejected"], strict=True)) == expected


def test_a_round_starts_where_the_kl_baseline_counts(
    part: Callable[[str], Any], script: ModuleType, preset: Any
) -> None:
    bench = script.Bench(preset, num_clients=2, steps=1, trl_settings={})
    kto = part("training_bench.workload").OBJECTIVES["kto"]
    load_adapter_state(bench.policy, bench.start)
    cache = ReferenceColumn(reference_scorer(bench.policy))
    for groups in bench.workload.groups.values():
        scored = score(bench.policy, groups, kto, cache)
        assert scored.mismatched_log_ratio.mean() > 0.1


@pytest.mark.slow
def test_all_ways_have_the_same_losses_and_adapters(
    script: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    script.main(["--json", "--clients", "2", "--steps", "2"])
    printed = capsys.readouterr()
    measured = json.loads(printed.out)
    assert measured["ratios"].keys() == {
        *(f"{o}_vs_{way}" for o in ("kto", "dpo") for way in ("trl", "engine trl", "sequential")),
        "example_gradients_vs_plain",
        "memory_vs_trl",
    }
    assert measured["max_loss_difference"] < 1e-5
    for name, indifferent in (("kto", 0.5), ("dpo", torch.tensor(2.0).log().item())):
        ways = measured["objectives"][name]["ways"]
        assert ways.keys() == WAYS
        for way in ways.values():
            # With the policy as its own reference the first loss would be this.
            assert abs(way["mean_loss"] - indifferent) > 1e-3
            assert way["update_difference_share"] < 0.01
        assert ways["TRL"]["update_difference_share"] == 0
        assert ways["lanes"]["update_difference_share"] > 0
        assert 0 < ways["TRL"]["share_of_making_trainers"] < 1
    assert measured["examples"]["max_difference"] < 1e-4
    assert measured["conditions"]["steps"] == 2
    assert printed.err.splitlines()[-1].startswith("block 4 of 4")

    script.print_tables(measured)
    table = capsys.readouterr().out.splitlines()
    for objective, raced in measured["objectives"].items():
        for name, way in raced["ways"].items():
            start = f"| {objective}, {name} | {way['examples_per_second']:.3g} | "
            assert sum(line.startswith(start) for line in table) == 1


def test_a_setting_of_trl_reaches_it(script: ModuleType, preset: Any) -> None:
    bench = script.Bench(
        preset, num_clients=1, steps=1, trl_settings={"per_device_train_batch_size": 1}
    )
    # TRL itself refuses this size, since a batch of one has no mismatched pair.
    with pytest.raises(ValueError, match="batch size must be > 1"):
        bench.objective("kto")


ALLOWED = {"torch", "transformers", "peft", "pydantic"}
ON_A_BARE_MACHINE = """
import json, sys
sys.path.insert(0, {scripts!r})
for name in {absent!r}:
    sys.modules[name] = None
import bench_training
from dataclasses import replace
bench_training.PRESETS["cpu"] = replace(
    bench_training.PRESETS["cpu"],
    make_base=lambda: bench_training.load_base_model("base-tiny", device="cpu"),
    prompt_tokens=(20, 40),
)
bench_training.main(["--json", "--clients", "1", "--preset", "gpu"])
"""


@pytest.mark.slow
def test_a_bare_machine_without_a_gpu_measures_what_it_can() -> None:
    project = tomllib.loads((SCRIPTS.parent / "pyproject.toml").read_text())["project"]
    needed = {re.split(r"[^\w-]", entry)[0] for entry in project["dependencies"]}
    # These three come with transformers.
    absent = {"trl", *needed} - ALLOWED - {"numpy", "safetensors", "pyyaml"}
    assert {"trl", "datasets", "flwr", "rdflib", "opacus"} < absent
    code = ON_A_BARE_MACHINE.format(scripts=str(SCRIPTS), absent=sorted(absent))
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    measured = json.loads(done.stdout)
    assert "there is no GPU: this is the CPU part" in done.stderr
    assert "trl is not installed" in done.stderr
    assert measured["ratios"].keys() == {
        "kto_vs_sequential",
        "dpo_vs_sequential",
        "example_gradients_vs_plain",
    }
    assert measured["max_loss_difference"] < 1e-5


@pytest.mark.slow
def test_examples_alone_are_printed_as_a_table(
    script: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    script.main(["--only", "examples", "--clients", "1"])
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("| ratios: example gradients vs plain | ") for line in lines) == 1
    assert "| conditions: clients | 1 |" in lines
    assert not any("kto" in line for line in lines[1:])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--clients", "0"], "must be a whole number of at least 1, got '0'"),
        (["--steps", "many"], "must be a whole number of at least 1, got 'many'"),
        (["--trl", "bf16"], "must be KEY=VALUE, got 'bf16'"),
        (["--only", "sft"], "invalid choice: 'sft'"),
    ],
)
def test_bad_arguments_are_named(
    script: ModuleType, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        script.main(arguments)
    assert message in capsys.readouterr().err


def test_a_setting_is_json_or_text(script: ModuleType) -> None:
    assert script.trl_setting("gradient_checkpointing=false") == ("gradient_checkpointing", False)
    assert script.trl_setting("optim=adamw_torch") == ("optim", "adamw_torch")


@pytest.mark.slow
def test_memory_is_that_of_the_watched_block(part: Callable[[str], Any]) -> None:
    measure = part("training_bench.measure")
    memory, later = measure.Memory(torch.device("cpu")), measure.Memory(torch.device("cpu"))
    with memory.watch():
        torch.ones(50_000_000)
    with later.watch():
        torch.ones(5_000_000)
    assert 0.19e9 < memory.above_bytes < 0.3e9
    assert memory.above_bytes < memory.peak_bytes
    assert 0.01e9 < later.above_bytes < 0.1e9


@pytest.mark.slow
def test_the_gpu_preset_has_the_shape_of_qwen3(part: Callable[[str], Any]) -> None:
    base = part("training_bench.gpu").random_qwen3("meta")
    num_values = {name: p.numel() for name, p in base.model.named_parameters()}
    # The published figures are 0.6 and 0.44 billion.
    assert sum(num_values.values()) == 596_049_920
    assert sum(n for name, n in num_values.items() if "embed" not in name) == 440_467_456
    assert base.model.dtype == torch.bfloat16


def test_numbers_are_the_words_of_the_random_model(part: Callable[[str], Any]) -> None:
    tokenizer = part("training_bench.gpu").number_tokenizer(50)
    workload = part("training_bench.workload")
    assert sorted(workload.plain_words(tokenizer)) == list(range(2, 50))
    text = workload.spell(tokenizer, [17, 4, 17]) + tokenizer.eos_token
    assert tokenizer(text)["input_ids"] == [17, 4, 17, tokenizer.eos_token_id]


def test_without_words_there_is_no_workload(part: Callable[[str], Any]) -> None:
    tokenizer = part("training_bench.gpu").number_tokenizer(2)
    with pytest.raises(ValueError, match="must have words with a space before them, got none"):
        part("training_bench.workload").plain_words(tokenizer)


@pytest.mark.slow
def test_the_use_of_the_matrix_rate(script: ModuleType, preset: Any) -> None:
    """On a CPU, where the same code runs."""
    bench = script.Bench(preset, num_clients=2, steps=1, trl_settings={})
    found = script.lane_use(
        bench.lane_trainer("dpo"),
        bench.workload.base.model,
        bench.workload.clients,
        bench.start,
        matrix_size=256,
    )
    assert found["matrix_teraflops"] > 0
    assert 0 < found["share_of_matrix_rate"] < 1
    assert 0 < sum(found["share_of_busy_time"].values()) <= 1.0001


def test_operations_of_the_frozen_layers_by_hand(part: Callable[[str], Any], preset: Any) -> None:
    config = (model := preset.make_base().model).config
    heads, keys = (
        config.head_dim * number
        for number in (config.num_attention_heads, config.num_key_value_heads)
    )
    layer = config.hidden_size * (2 * heads + 2 * keys + 3 * config.intermediate_size)
    expected = 4 * 10 * config.num_hidden_layers * layer
    assert part("training_bench.gpu").frozen_operations(model, 10) == expected
