"""What a federated run costs, by formula: tokens, floating-point operations, bytes, hours.

A model's shape is enough; no parameter is loaded and nothing is measured. Beside the lane engine
stands a usual trainer, which reads each completion as a sequence of its own, prompt included, and
computes the reference and the mismatched completions anew in every step. Counted are products of
matrices, a multiplication with its addition as two operations. All groups are taken to be alike.

Example: .venv/bin/python scripts/cost_model.py --cohort-size 4 256 --set adapter.lora_rank=8
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, Qwen3Config

from pkgllm.config.load import load_config
from pkgllm.config.schema import Adapter, Experiment
from pkgllm.errors import ModelError, PkgllmError
from pkgllm.lm.adapter import attach_adapter
from pkgllm.lm.lanes.decoder import LaneDecoder
from pkgllm.lm.model_files import find_base_model
from pkgllm.training.lane_memory import PassCost, share_out
from pkgllm.training.lane_passes import is_batched

QWEN3_SMALL = "Qwen/Qwen3-0.6B"
PEAK, AIM = 989.0, 0.3
"""Dense bfloat16 products of an H200 by its data sheet, teraFLOP/s, and the share aimed at."""
GPU_BYTES, GPU_SHARE, CPU_BYTES = 141e9, 0.8, 2 << 30
"""Memory of an H200 by its data sheet, and what training takes where no limit is configured."""
BLOCK = 256
"""Queries in a block of the engine's attention on a CPU."""
PARTS = ("frozen_forward", "frozen_backward", "adapters", "attention", "head")
Flops = NDArray[np.float64]
"""Operations of each of :data:`PARTS`."""


@dataclass(frozen=True, slots=True)
class Work:
    """What a federated run does, every group alike."""

    prompt_tokens: int
    completions: int
    """Of a group."""
    mismatched: int
    """Further completions of a group, which only a KL baseline needs."""
    completion_tokens: int
    """With the terminator, which is predicted and never fed."""
    needs_reference: bool
    groups_per_step: int
    local_steps: int
    cohort_size: int
    rounds: int
    clients: int
    groups_per_client: int

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            least = 0 if name in ("mismatched", "needs_reference") else 1
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        if self.cohort_size > self.clients:
            raise ValueError(f"cohort_size {self.cohort_size} needs as many clients")

    @property
    def branches(self) -> int:
        """Completions of a group, mismatched ones included."""
        return self.completions + self.mismatched

    @property
    def branch_rows(self) -> int:
        """Tokens of a group's completions that are fed."""
        return self.branches * (self.completion_tokens - 1)

    @property
    def groups_in_step(self) -> int:
        """Groups in a step of one client."""
        return min(self.groups_per_step, self.groups_per_client)

    @property
    def groups_in_round(self) -> int:
        """Groups that a cohort trains on, each as often as it comes."""
        return self.cohort_size * self.local_steps * self.groups_in_step

    @property
    def groups_met(self) -> float:
        """Different groups in a run, by expectation; none of a client's comes twice before all."""
        met = min(self.local_steps * self.groups_in_step, self.groups_per_client)
        chance = self.cohort_size / self.clients * met / self.groups_per_client
        return self.clients * self.groups_per_client * (1 - (1 - chance) ** self.rounds)


@dataclass(frozen=True, slots=True)
class Pass:
    """What goes through the model: a group, or one completion behind its prompt."""

    rows: int
    kept: int
    """Rows that go on after the attention of the last layer."""
    predicting: int
    """Rows that reach the LM head."""
    pairs: int
    """Scores of a query and a key that are computed for each head, hidden ones included."""

    @classmethod
    def of_group(cls, work: Work, *, batched: bool) -> "Pass":
        """Return how the lane engine reads a group: with one mask on a GPU, in blocks on a CPU."""
        rows, predicting = work.prompt_tokens + work.branch_rows, 1 + work.branch_rows
        return cls(rows, predicting, predicting, rows**2 if batched else _blocked_pairs(work))

    @classmethod
    def of_sequence(cls, work: Work) -> "Pass":
        """Return how a usual trainer reads a completion."""
        rows = work.prompt_tokens + work.completion_tokens
        return cls(rows, rows, work.completion_tokens, rows**2)


def _blocked_pairs(work: Work) -> int:
    prompt, length, pairs = work.prompt_tokens, work.completion_tokens - 1, 0
    for start in range(0, prompt, BLOCK):
        end = min(start + BLOCK, prompt)
        pairs += (end - start) * end
    # A block holds whole completions.
    together = max(BLOCK // length, 1) * length if length else 1
    for start in range(0, work.branch_rows, together):
        queries = min(together, work.branch_rows - start)
        pairs += queries * (prompt + queries)
    return pairs


class Counter:
    """Counts the operations of passes through a model with an adapter.

    Args:
        decoder: Its parameters may be on the device ``meta``, where they have a shape alone.
    """

    def __init__(self, decoder: LaneDecoder) -> None:
        self._decoder = decoder
        self._heads = decoder.num_heads * decoder.head_dim
        keys = decoder.num_key_value_heads * decoder.head_dim
        hidden, arms = decoder.hidden_size, decoder.intermediate_size
        self._sizes = {
            "self_attn.q_proj": (hidden, self._heads),
            "self_attn.k_proj": (hidden, keys),
            "self_attn.v_proj": (hidden, keys),
            "self_attn.o_proj": (self._heads, hidden),
            "mlp.gate_proj": (hidden, arms),
            "mlp.up_proj": (hidden, arms),
            "mlp.down_proj": (arms, hidden),
        }

    def lanes(self, work: Work, *, checkpoint: bool) -> tuple[Flops, Flops]:
        """Count what the lane engine does with a group: to train on it, and as reference."""
        batched = is_batched(self._decoder)
        read = Pass.of_group(work, batched=batched)
        # The head's second product is that of the averaged rows.
        # With checkpoints, the layers are gone through again on the way back.
        training = self._forward(read) * (2 if checkpoint else 1) + self._head(read, products=2)
        # Torch's own attention computes its scores once more; that of blocks has kept them.
        training += self._backward(read, attention_products=5 if batched else 4)
        return training, self._forward(read, adapted=False) + self._head(read, products=1)

    def usual(self, work: Work) -> tuple[Flops, Flops, Flops]:
        """Count what a usual trainer does with a group: training, KL passes, and reference.

        It keeps its activations, and only what predicts a completion's token reaches its head.
        """
        read = Pass.of_sequence(work)
        mismatched = self._forward(read) + self._head(read, products=1)
        training = self._forward(read) + self._head(read, products=2)
        training += self._backward(read, attention_products=5)
        reference = self._forward(read, adapted=False) + self._head(read, products=1)
        return training * work.completions, mismatched * work.mismatched, reference * work.branches

    def _forward(self, read: Pass, *, adapted: bool = True) -> Flops:
        frozen = adapter = 0
        for rows, inputs, outputs, rank, _ in self._layers(read):
            frozen += rows * inputs * outputs
            adapter += rows * rank * (inputs + outputs)
        return np.array([2.0 * frozen, 0, 2 * adapter * adapted, self._attention(read, 2), 0])

    def _backward(self, read: Pass, *, attention_products: int) -> Flops:
        frozen = adapter = 0
        for rows, inputs, outputs, rank, wants_rows in self._layers(read):
            # The gradient of the rows alone, because the matrices are frozen.
            frozen += rows * inputs * outputs * wants_rows
            # Of B, of what B maps, of A, of the rows.
            wanted = self._decoder.trains_lora_a + wants_rows
            adapter += rows * rank * (2 * outputs + wanted * inputs)
        attention = self._attention(read, attention_products)
        return np.array([0.0, 2 * frozen, 2 * adapter, attention, 0])

    def _attention(self, read: Pass, products: int) -> int:
        return 2 * products * read.pairs * self._heads * self._decoder.num_layers

    def _head(self, read: Pass, *, products: int) -> Flops:
        size = self._decoder.hidden_size * self._decoder.vocab_size
        return np.array([0.0, 0, 0, 0, 2 * products * read.predicting * size])

    def _layers(self, read: Pass) -> Iterator[tuple[int, int, int, int, bool]]:
        """Yield each linear layer's rows, sizes and rank, and whether its rows have a gradient."""
        slots, last = self._decoder.layout.slots, self._decoder.num_layers - 1
        for number in range(self._decoder.num_layers):
            for name, (inputs, outputs) in self._sizes.items():
                before = name in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
                slot = slots.get(f"base_model.model.model.layers.{number}.{name}")
                rows = read.kept if number == last and not before else read.rows
                wants_rows = number > 0 or not before
                yield rows, inputs, outputs, slot.lora_rank if slot else 0, wants_rows


def read_shape(name: str) -> PretrainedConfig:
    """Return the configuration of a base model; that of Qwen3-0.6B is built in.

    Raises:
        ModelError: If there is none that can be read.
    """
    if name == QWEN3_SMALL:
        return Qwen3Config(
            vocab_size=151_936,
            hidden_size=1024,
            intermediate_size=3072,
            num_hidden_layers=28,
            num_attention_heads=16,
            num_key_value_heads=8,
            head_dim=128,
            tie_word_embeddings=True,
        )
    place = find_base_model(name)
    try:
        found = AutoConfig.from_pretrained(place, local_files_only=Path(place).is_dir())
    except Exception as error:  # damaged files raise whatever their readers stumble over
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"--model {name}: cannot read {place}/config.json: {reason}") from error
    assert isinstance(found, PretrainedConfig)
    return found


def without_values(shape: PretrainedConfig, lora: Adapter, dtype: str) -> tuple[LaneDecoder, int]:
    """Return a model on the device ``meta``, and the bytes of its frozen parameters."""
    with torch.device("meta"):
        # transformers leaves this method untyped.
        model = AutoModelForCausalLM.from_config(shape, dtype=getattr(torch, dtype))  # type: ignore[no-untyped-call]
    num_bytes = sum(value.numel() * value.itemsize for value in model.parameters())
    policy = attach_adapter(model.requires_grad_(False), **lora.model_dump(), seed=0)
    return LaneDecoder(policy), num_bytes


def cost(decoder: LaneDecoder, work: Work, memory_bytes: int, teraflops: float) -> dict[str, Any]:
    """Return what a run costs on the decoder's device, in lanes and with a usual trainer.

    A pass may take ``memory_bytes`` beside the frozen parameters.
    """
    if not teraflops > 0:
        raise ValueError(f"--teraflops must be above 0, got {teraflops:g}")
    longest, equal = Pass.of_group(work, batched=True).rows, is_batched(decoder)
    rows = longest * work.groups_in_step
    of_pass = PassCost.of(decoder, longest_group=longest, checkpoint=False)
    checkpoint = of_pass.total(rows=rows, lanes=1) > memory_bytes
    if checkpoint:
        of_pass = PassCost.of(decoder, longest_group=longest, checkpoint=True)
    passes = share_out([rows] * work.cohort_size, of_pass, memory_bytes, equal=equal)
    training, reference = Counter(decoder).lanes(work, checkpoint=checkpoint)
    asked, per_round = int(work.needs_reference), work.groups_in_round

    def way(tokens: int, training: Flops, kl: Flops, again: Flops, once: Flops) -> dict[str, Any]:
        of_group = dict(zip(PARTS, training.tolist(), strict=True))
        of_group |= {"kl_passes": float(kl.sum()), "reference": asked * float(again.sum())}
        of_round = {name: per_round * value for name, value in of_group.items()}
        of_run = {name: work.rounds * value for name, value in of_round.items()}
        of_run["reference"] += work.groups_met * asked * float(once.sum())
        return {
            "tokens_of_a_round": tokens,
            "flops_of_a_round": {**of_round, "total": sum(of_round.values())},
            "flops_of_a_run": {**of_run, "total": sum(of_run.values())},
            "hours": sum(of_run.values()) / (teraflops * 1e12) / 3600,
        }

    sequences = per_round * work.branches * (1 + asked)
    usual_tokens = sequences * Pass.of_sequence(work).rows
    adapter, nothing = 4 * decoder.layout.num_values, np.zeros(len(PARTS))
    return {
        "work": asdict(work),
        "lanes": way(per_round * longest, training, nothing, nothing, reference),
        "usual": way(usual_tokens, *Counter(decoder).usual(work), nothing),
        "bytes": {
            "adapter_down_to_a_client": adapter,
            "adapter_up_from_a_client": adapter,
            "adapters_of_a_round": 2 * adapter * work.cohort_size,
            "adapters_of_a_run": 2 * adapter * work.cohort_size * work.rounds,
            "pass_at_most": memory_bytes,
            "pass_with_one_client": of_pass.total(rows=rows, lanes=1),
            "largest_pass": of_pass.total(rows=rows * len(passes[0]), lanes=len(passes[0])),
        },
        "passes_of_a_step": len(passes),
        "clients_in_the_largest_pass": len(passes[0]),
        "activations_computed_again": checkpoint,
        "reference_tokens_once": asked * work.groups_met * longest,
    }


def print_cost(found: dict[str, Any]) -> None:
    """Print what a run costs in Markdown."""
    work, ways = found.pop("work"), [found.pop("lanes"), found.pop("usual")]
    print(f"\n## {work['rounds']} rounds of {work['cohort_size']} clients\n")
    print("| teraFLOP | lanes, round | usual, round | lanes, run | usual, run |")
    print("|---|---|---|---|---|")
    columns = [way[f"flops_of_a_{span}"] for span in ("round", "run") for way in ways]
    for name in columns[0]:
        shown = " | ".join(f"{column[name] / 1e12:,.1f}" for column in columns)
        print(f"| {name.replace('_', ' ')} | {shown} |")
    print("\n| what | lanes | usual |\n|---|---|---|")
    for name, form in (("tokens_of_a_round", ",d"), ("hours", ".2f")):
        print(f"| {name.replace('_', ' ')} | {' | '.join(format(w[name], form) for w in ways)} |")
    print("\n| what | value |\n|---|---|")
    megabytes = {f"{name}, MB": value / 1e6 for name, value in found.pop("bytes").items()}
    for name, value in (megabytes | found).items():
        shown = f"{value:,.1f}" if isinstance(value, float) else str(value)
        print(f"| {name.replace('_', ' ')} | {shown} |")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print tables, or one JSON object; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--json", action="store_true", help="print one object instead")
    add("--config", default="fedkto.yaml", help="groups, adapter and steps (default: %(default)s)")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="of the configuration")
    add("--model", help=f"another base model than the configuration's; {QWEN3_SMALL} is built in")
    add("--cohort-size", type=int, nargs="+", default=[4, 256], help="clients of a round")
    for name, default, meaning in (
        ("--rounds", 128, "rounds"),
        ("--prompt-tokens", 600, "tokens of a prompt in the mean"),
        ("--completion-tokens", 12, "tokens of a completion with its terminator, in the mean"),
        ("--clients", 316, "training clients, of whom each round draws some"),
        ("--groups-per-client", 6, "groups of a client in the mean"),
    ):
        add(name, type=int, default=default, help=f"{meaning} (default: {default})")
    add("--teraflops", type=float, help=f"sustained rate (default: {AIM:g} of {PEAK:g})")
    options = parser.parse_args(arguments)
    rate = AIM * PEAK if options.teraflops is None else options.teraflops
    try:
        config = load_config(options.config, options.set)
        chosen = config.base_model
        name, on_cpu = options.model or chosen.name, chosen.device == "cpu"
        decoder, frozen_bytes = without_values(read_shape(name), config.adapter, chosen.dtype)
        decoder.device = torch.device("cpu" if on_cpu else "cuda")
        room = CPU_BYTES if on_cpu else GPU_SHARE * (GPU_BYTES - frozen_bytes)
        if config.training.memory_gib is not None:
            room = config.training.memory_gib * 2**30
        works = [_work(config, options, size) for size in options.cohort_size]
        runs = [cost(decoder, work, int(room), rate) for work in works]
    except (PkgllmError, ValueError) as error:
        print(f"cost_model: {error}", file=sys.stderr)
        return getattr(error, "exit_code", 1)
    assumption = f"{rate:g} teraFLOP/s are assumed, not measured: no GPU was at hand"
    if options.teraflops is None:
        assumption += f". They are {AIM:.0%} of the {PEAK:g} in the data sheet of an H200"
    if options.json:
        print(json.dumps({"base_model": name, "rate": assumption, "runs": runs}))
        return 0
    print(f"{name}, {chosen.dtype}: {frozen_bytes / 1e6:,.1f} MB of frozen parameters.")
    print(f"{assumption}. The hours count products of matrices alone.")
    for found in runs:
        print_cost(found)
    return 0


def _work(config: Experiment, options: argparse.Namespace, cohort_size: int) -> Work:
    objective, negatives = config.objective, config.groups.negatives
    completions = config.groups.hidden_facts + negatives.known + negatives.uniform
    return Work(
        prompt_tokens=options.prompt_tokens,
        completions=completions,
        mismatched=completions if objective.needs_mismatched else 0,
        completion_tokens=options.completion_tokens,
        needs_reference=objective.needs_reference,
        groups_per_step=config.training.groups_per_step,
        local_steps=config.training.local_steps,
        cohort_size=cohort_size,
        rounds=options.rounds,
        clients=options.clients,
        groups_per_client=options.groups_per_client,
    )


if __name__ == "__main__":
    sys.exit(main())
