import importlib.util
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch.utils.flop_counter import (
    FlopCounterMode,
    bmm_flop,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)

from helpers.tiny_decoders import tiny_decoder
from pkgllm.config.schema import Adapter
from pkgllm.federation.cohort import sample_cohort
from pkgllm.lm import projection
from pkgllm.lm.adapter import adapter_state, attach_adapter
from pkgllm.lm.base_model import load_base_model
from pkgllm.lm.lanes.decoder import LaneDecoder
from pkgllm.objectives.apo_zero import ApoZero
from pkgllm.objectives.kto import Kto
from pkgllm.prompts.groups import Completion, Group
from pkgllm.prompts.prompts import Prompt
from pkgllm.training import cohort, lane_passes
from pkgllm.training.batches import draw_batches
from pkgllm.training.cohort import LaneTrainer
from pkgllm.training.lane_memory import PassCost
from pkgllm.training.lane_passes import reference_scorer
from pkgllm.training.local import LocalSteps
from pkgllm.training.reference import ReferenceColumn

SCRIPT = Path(__file__).parents[2] / "scripts" / "cost_model.py"
ROOM = 2**30
KTO = Kto(beta=0.1, desirable_weight=1, undesirable_weight=1, nll_weight=0)
APO_ZERO = ApoZero(beta=0.1, desirable_weight=1, undesirable_weight=1, nll_weight=0)
WORK = {
    "prompt_tokens": 40,
    "completions": 5,
    "mismatched": 3,
    "completion_tokens": 4,
    "needs_reference": True,
    "groups_per_step": 2,
    "local_steps": 1,
    "cohort_size": 2,
    "rounds": 1,
    "clients": 2,
    "groups_per_client": 2,
}
CASES: Mapping[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "much of everything": ({}, {}, {"rounds": 2, "groups_per_client": 3, "local_steps": 2}),
    "a large vocabulary": ({"vocab_size": 3000}, {}, {}),
    "many adapters": ({}, {"lora_rank": 24}, {}),
    "some adapters": ({}, {"lora_rank": 24, "target_modules": ("q_proj", "down_proj")}, {}),
    "only B is trained": ({}, {"lora_rank": 24, "freeze_a": True}, {}),
    "one layer": ({"num_hidden_layers": 1}, {}, {"prompt_tokens": 7}),
    "three wide layers": (
        {"num_hidden_layers": 3, "hidden_size": 64, "intermediate_size": 160},
        {},
        {"groups_per_client": 1},
    ),
    "long prompts": ({}, {}, {"prompt_tokens": 601}),
    "many completions": ({}, {}, {"completions": 30, "mismatched": 0, "completion_tokens": 12}),
    "long completions": ({}, {}, {"completions": 2, "mismatched": 1, "completion_tokens": 281}),
    "completions of one token": ({}, {}, {"completion_tokens": 1}),
}
"""Changes to the model, the adapter and the work, so that each product weighs somewhere."""


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("cost_model", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # A dataclass looks its own module up.
    sys.modules["cost_model"] = module
    spec.loader.exec_module(module)
    return module


def counted(action: Callable[[], object]) -> int:
    """Let torch count, by formulas of its own; those that it lacks on a CPU are a GPU's."""
    aten = torch.ops.aten
    count_seen: Any = sdpa_flop_count
    count_back: Any = sdpa_backward_flop_count
    others = {
        aten._scaled_dot_product_flash_attention_for_cpu: (
            lambda *shapes, **_: count_seen(*shapes[:3])
        ),
        aten._scaled_dot_product_flash_attention_for_cpu_backward: (
            lambda *shapes, **_: count_back(*shapes[:4])
        ),
        aten.baddbmm_: lambda *shapes, **_: bmm_flop(*shapes[1:3]),
    }
    with FlopCounterMode(display=False, custom_mapping=others) as counter:
        action()
    return int(counter.get_total_flops())


def clients_of(work: Any) -> dict[str, tuple[Group, ...]]:
    def completions(count: int, seed: int) -> tuple[Completion, ...]:
        generator = torch.Generator().manual_seed(seed)
        ids = torch.randint(60, (count, work.completion_tokens), generator=generator)
        return tuple(
            Completion(str(row), tuple(row.tolist()), desirable=bool(i % 2), source="uniform")
            for i, row in enumerate(ids)
        )

    def group(number: int) -> Group:
        generator = torch.Generator().manual_seed(number)
        ids = torch.randint(60, (work.prompt_tokens,), generator=generator).tolist()
        return Group(
            Prompt("p", "", "", tuple(ids), frozenset(), 0),
            completions(work.completions, 1),
            completions(work.mismatched, 2),
        )

    each = work.groups_per_client
    return {
        f"p{client}": tuple(group(client * each + index) for index in range(each))
        for client in range(work.clients)
    }


def a_policy(model: dict[str, Any], adapter: dict[str, Any]) -> tuple[PeftModel, Adapter]:
    chosen = Adapter(**{"lora_rank": 3, **adapter})
    return attach_adapter(tiny_decoder(**model), **chosen.model_dump(), seed=0), chosen


def counted_in_lanes(policy: PeftModel, work: Any, *, memory_bytes: int = ROOM) -> int:
    decoder = LaneDecoder(policy)
    trainer = LaneTrainer(
        decoder,
        clients_of(work),
        KTO if work.mismatched else APO_ZERO,
        ReferenceColumn(reference_scorer(decoder, memory_bytes)),
        steps=LocalSteps(local_steps=work.local_steps, groups_per_step=work.groups_per_step),
        seed=0,
        memory_bytes=memory_bytes,
    )
    adapters = {client: adapter_state(policy) for client in clients_of(work)}

    def rounds() -> None:
        for round_num in range(1, work.rounds + 1):
            done = trainer(adapters, round_num=round_num, learning_rate=1e-3)
            assert not [each for each in done.values() if isinstance(each, Exception)]

    return counted(rounds)


@pytest.mark.slow
@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_torch_counts_the_same_operations_in_the_lane_engine(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, case: str, batched: bool
) -> None:
    # Torch counts its own products and not those of oneDNN.
    monkeypatch.setattr(projection, "_ONEDNN", None)
    for module in (cohort, lane_passes, script):
        monkeypatch.setattr(module, "is_batched", lambda decoder: batched)
    model, adapter, changes = CASES[case]
    policy, chosen = a_policy(model, adapter)
    decoder, _ = script.without_values(policy.get_base_model().config, chosen, "float32")
    decoder.device = torch.device("cpu")
    work = script.Work(**(WORK | changes))
    found = script.cost(decoder, work, ROOM, 1.0)
    expected = counted_in_lanes(policy, work)
    assert found["lanes"]["flops_of_a_run"]["total"] == pytest.approx(expected, rel=0.002)
    assert not found["activations_computed_again"]


@pytest.mark.slow
def test_torch_counts_what_is_computed_again_where_memory_is_short(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projection, "_ONEDNN", None)
    policy, chosen = a_policy({"num_hidden_layers": 4}, {})
    decoder, _ = script.without_values(policy.get_base_model().config, chosen, "float32")
    decoder.device = torch.device("cpu")
    work = script.Work(**WORK)
    group = work.prompt_tokens + 8 * 3
    cost = PassCost.of(LaneDecoder(policy), longest_group=group, checkpoint=False)
    room = cost.total(rows=2 * group, lanes=1)
    found = [script.cost(decoder, work, memory, 1.0) for memory in (room, room - 1)]
    assert [each["activations_computed_again"] for each in found] == [False, True]
    assert found[0]["bytes"]["pass_with_one_client"] == room
    assert found[0]["clients_in_the_largest_pass"] == 1
    assert found[0]["passes_of_a_step"] == 2
    for each, memory in zip(found, (room, room - 1), strict=True):
        expected = counted_in_lanes(policy, work, memory_bytes=memory)
        assert each["lanes"]["flops_of_a_run"]["total"] == pytest.approx(expected, rel=0.002)


@pytest.mark.parametrize("case", CASES)
def test_torch_counts_the_same_operations_in_a_usual_trainer(script: ModuleType, case: str) -> None:
    model, adapter, changes = CASES[case]
    policy, chosen = a_policy(model, adapter)
    decoder, _ = script.without_values(policy.get_base_model().config, chosen, "float32")
    decoder.device = torch.device("cpu")
    one = {"cohort_size": 1, "clients": 1, "groups_per_client": 1, "rounds": 1, "local_steps": 1}
    one |= {"completions": 2}
    work = script.Work(**(WORK | changes | one))
    ((group,),) = clients_of(work).values()
    causal: Any = policy.get_base_model()

    def log_prob(completion: Completion) -> torch.Tensor:
        ids = torch.tensor([[*group.prompt.token_ids, *completion.token_ids]])
        hidden = causal.model(input_ids=ids, use_cache=False).last_hidden_state[0]
        log_probs = causal.lm_head(hidden[work.prompt_tokens - 1 : -1]).log_softmax(-1)
        each: torch.Tensor = log_probs.gather(1, torch.tensor([completion.token_ids]).T)
        return each.sum()

    def training() -> None:
        for completion in group.completions:
            log_prob(completion).backward()  # type: ignore[no-untyped-call]

    def kl_passes() -> None:
        with torch.no_grad():
            for completion in group.mismatched:
                log_prob(completion)

    def reference() -> None:
        with torch.no_grad(), policy.disable_adapter():
            for completion in (*group.completions, *group.mismatched):
                log_prob(completion)

    found = script.cost(decoder, work, ROOM, 1.0)["usual"]["flops_of_a_round"]
    trained = sum(found[part] for part in script.PARTS)
    # The gradient that a frozen A of the first layer would have is the engine's alone.
    exactly = 0.02 if chosen.freeze_a else 0.002
    assert trained == pytest.approx(counted(training), rel=exactly)
    assert found["kl_passes"] == pytest.approx(counted(kl_passes), rel=0.002)
    assert found["reference"] == pytest.approx(counted(reference), rel=0.002)
    assert found["total"] == trained + found["kl_passes"] + found["reference"]


@pytest.mark.slow
def test_the_parts_of_qwen3_by_hand(script: ModuleType) -> None:
    decoder, frozen_bytes = script.without_values(
        script.read_shape("Qwen/Qwen3-0.6B"), Adapter(), "bfloat16"
    )
    # 28 layers of 15,728,640 values, their norms, the last norm and the tied embeddings.
    layers, norms = 28 * 15_728_640, 28 * (2 * 1024 + 2 * 128) + 1024
    assert frozen_bytes == 2 * (layers + norms + 151_936 * 1024)
    work = script.Work(600, 16, 16, 12, True, 4, 4, 4, 128, 316, 6)
    found = script.cost(decoder, work, 10**11, 296.7)
    rows, predicting, groups = 600 + 32 * 11, 1 + 32 * 11, 4 * 4 * 4
    heads, rest = 2 * 1024 * 2048, 15_728_640 - 2 * 1024 * 2048
    last = rows * heads + predicting * rest
    forward = 2 * groups * (27 * rows * 15_728_640 + last)
    backward = forward - 2 * groups * rows * heads
    pairs = 16 * 128 * rows**2
    of_round = found["lanes"]["flops_of_a_round"]
    assert of_round["frozen_forward"] == pytest.approx(forward, rel=1e-12)
    assert of_round["frozen_backward"] == pytest.approx(backward, rel=1e-12)
    assert of_round["attention"] == pytest.approx(groups * 28 * 2 * 7 * pairs, rel=1e-12)
    assert of_round["head"] == pytest.approx(groups * 4 * predicting * 1024 * 151_936, rel=1e-12)
    assert of_round["reference"] == 0
    # 16 * (1024 + 2048 for queries, and so on), in float32.
    adapter = 4 * 28 * 16 * (3072 + 2 * 2048 + 3072 + 3 * 4096)
    assert found["bytes"]["adapter_down_to_a_client"] == adapter
    assert found["bytes"]["adapters_of_a_run"] == 128 * 4 * 2 * adapter
    assert found["lanes"]["tokens_of_a_round"] == groups * rows
    # Every completion once for training and once for the reference, and so every mismatched one.
    assert found["usual"]["tokens_of_a_round"] == groups * 2 * 32 * 612
    assert found["lanes"]["hours"] == pytest.approx(
        found["lanes"]["flops_of_a_run"]["total"] / 296.7e12 / 3600
    )


def test_the_reference_is_paid_for_once_in_a_run(script: ModuleType) -> None:
    decoder, _ = script.without_values(tiny_decoder().config, Adapter(), "float32")
    work = script.Work(**WORK)
    found = [
        script.cost(decoder, each, ROOM, 1.0)
        for each in (work, replace(work, rounds=20), replace(work, needs_reference=False))
    ]
    short, long, none = (each["lanes"]["flops_of_a_run"] for each in found)
    assert short["reference"] == long["reference"] > 0 == none["reference"]
    assert long["head"] == 20 * short["head"] == 20 * none["head"]
    again = [each["usual"]["flops_of_a_run"]["reference"] for each in found]
    assert again == [again[0], 20 * again[0], 0]


@pytest.mark.parametrize("changes", [{}, {"groups_per_step": 9}, {"local_steps": 1}])
def test_so_many_different_groups_are_met(script: ModuleType, changes: dict[str, int]) -> None:
    many = {"local_steps": 2, "clients": 9, "cohort_size": 2, "groups_per_client": 7, "rounds": 5}
    work = script.Work(**(WORK | many | changes))
    clients = clients_of(replace(work, prompt_tokens=4))
    steps = LocalSteps(local_steps=work.local_steps, groups_per_step=work.groups_per_step)
    met, num_runs = 0, 300
    for seed in range(num_runs):
        met += len(
            {
                id(group)
                for round_num in range(1, work.rounds + 1)
                for client in sample_cohort(list(clients), work.cohort_size, seed, round_num)
                for batch in draw_batches(
                    clients[client], steps=steps, seed=seed, client=client, round_num=round_num
                )
                for group in batch
            }
        )
    assert met / num_runs == pytest.approx(work.groups_met, rel=0.03)


def test_a_model_in_a_folder_is_read_without_its_values(
    script: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--model", "base-tiny", "--config", "quickstart.yaml", "--cohort-size", "2", "3"]
    command += ["--clients", "3", "--set", "base_model.device=cpu", "--teraflops", "0.1"]
    assert script.main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["rate"].startswith("0.1 teraFLOP/s are assumed, not measured")
    assert [run["work"]["cohort_size"] for run in found["runs"]] == [2, 3]
    policy = attach_adapter(
        load_base_model("base-tiny", device="cpu").model, **Adapter().model_dump(), seed=0
    )
    num_bytes = sum(value.nbytes for value in adapter_state(policy).values())
    assert {run["bytes"]["adapter_up_from_a_client"] for run in found["runs"]} == {num_bytes}
    rows = 4 * (600 + 32 * 11)
    cost = PassCost.of(LaneDecoder(policy), longest_group=rows // 4, checkpoint=False)
    run = found["runs"][1]
    assert run["bytes"]["pass_with_one_client"] == cost.total(rows=rows, lanes=1)
    # A step has more rows than a CPU's caches, so that each client goes alone.
    assert run["passes_of_a_step"] == 3
    assert script.main(command) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("base-tiny, float32: ")
    assert f"| adapter up from a client, MB | {num_bytes / 1e6:.1f} |" in printed
    total = run["lanes"]["flops_of_a_round"]["total"] / 1e12
    assert f"\n| total | {total:.1f} | " in printed.partition("rounds of 3 clients")[2]


def test_the_configuration_says_what_a_group_is(
    script: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    def work(*settings: str) -> dict[str, Any]:
        options = [part for setting in settings for part in ("--set", setting)]
        assert script.main(["--model", "base-tiny", "--json", *options]) == 0
        run: dict[str, Any] = json.loads(capsys.readouterr().out)["runs"][1]
        return dict(run["work"])

    usual = {"prompt_tokens": 600, "completion_tokens": 12, "rounds": 128, "clients": 316}
    usual |= {"groups_per_client": 6, "cohort_size": 256, "groups_per_step": 4, "local_steps": 4}
    kto = {"completions": 16, "mismatched": 16, "needs_reference": True}
    assert work() == usual | kto
    settings = ["objective={name: sft}", "groups.hidden_facts=2", "groups.negatives.known=3"]
    sft = {"completions": 13, "mismatched": 0, "needs_reference": False, "local_steps": 7}
    assert work(*settings, "training.local_steps=7") == usual | sft


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["--model", "nowhere"], "no base model 'nowhere'"),
        (["--set", "adapter.target_modules=[nothing]"], "adapter.target_modules: "),
        (["--set", "adapter.lora_rnak=3"], "adapter.lora_rnak"),
        (["--clients", "3"], "cohort_size 4 needs as many clients"),
        (["--rounds", "0"], "rounds must be at least 1, got 0"),
        (["--teraflops", "0"], "--teraflops must be above 0, got 0"),
        (["--set", "training.memory_gib=0.01"], "training.memory_gib must be at least"),
        (["--set", "mode.rounds=none"], "mode.rounds"),
    ],
)
def test_what_cannot_be_counted_is_said(
    script: ModuleType, capsys: pytest.CaptureFixture[str], command: list[str], message: str
) -> None:
    assert script.main(["--model", "base-tiny", "--json", *command]) in (1, 2)
    captured = capsys.readouterr()
    assert captured.err.startswith("cost_model: ")
    assert message in captured.err
    assert captured.out == ""


def test_a_damaged_shape_is_said(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "no such type"}')
    assert script.main(["--model", str(tmp_path)]) == 1
    assert f"cost_model: --model {tmp_path}: cannot read" in capsys.readouterr().err
