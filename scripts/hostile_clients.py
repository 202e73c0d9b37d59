"""Train on the small world with 30 % hostile clients under each aggregator, and rank people.

Three of each cohort of ten are hostile; which ones is drawn from the seed. Runs that are finished
are kept, so the script can be stopped and started again. Prints a Markdown table of MRR.

    python scripts/hostile_clients.py -o runs/hostile --rounds 4 --clients 20
"""

import argparse
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from pkgllm.config.load import load_config
from pkgllm.federation.flower.transport import FlowerTransport
from pkgllm.federation.messages import Delivery, Instruction, Update
from pkgllm.pipeline import federated
from pkgllm.pipeline.train import resume, train
from pkgllm.progress import Silent
from pkgllm.randomness import stream

COHORT, HOSTILE = 10, 3
AGGREGATORS = {
    "fedavg, no bound": ("fedavg", "null"),
    "fedavg": ("fedavg", "5"),
    "fedmedian": ("fedmedian", "5"),
    "fedtrimmedavg .3": ("fedtrimmedavg, trimmed_share: 0.3", "5"),
    "krum, f 3": ("krum, num_malicious: 3", "5"),
}
ATTACKS = ("none", "flip10", "scale10", "nan", "weight1e9")


class HostileTransport(FlowerTransport):
    """Replaces the updates of some of a cohort, as a client on another machine could."""

    attack = "none"

    def exchange(self, instructions: Mapping[str, Instruction], timeout: float) -> Delivery:
        """See :class:`~pkgllm.federation.messages.Transport`."""
        delivery = super().exchange(instructions, timeout)
        round_num = next(iter(instructions.values())).round_num
        drawn = stream(0, "hostile", round_num).choice(len(instructions), HOSTILE, replace=False)
        hostile = {sorted(instructions)[place] for place in drawn}
        replies = {
            client: spoilt(reply, instructions[client], self.attack)
            if client in hostile and isinstance(reply, Update)
            else reply
            for client, reply in delivery.replies.items()
        }
        return replace(delivery, replies=replies)


def spoilt(update: Update, asked: Instruction, attack: str) -> Update:
    """Return what a hostile client sends in place of its update."""
    factors = {"flip10": -10.0, "scale10": 10.0, "nan": torch.nan, "weight1e9": -1.0}
    if attack not in factors:
        return update
    adapter = {
        key: start + factors[attack] * (update.adapter[key] - start)
        for key, start in asked.adapter.items()
    }
    return replace(update, adapter=adapter, weight=1e9 if attack == "weight1e9" else update.weight)


def run(
    folder: Path, strategy: str, ratio: str, attack: str, arguments: argparse.Namespace
) -> float:
    """Train and rank, unless that is done; return MRR."""
    results = folder / "results.json"
    if not results.exists():
        HostileTransport.attack = attack
        vars(federated)["FlowerTransport"] = HostileTransport
        overrides = [
            f"mode.rounds={arguments.rounds}",
            f"mode.cohort_size={COHORT}",
            f"mode.strategy={{name: {strategy}}}",
            f"mode.max_update_ratio={ratio}",
            f"evaluation.max_clients={arguments.clients}",
            # The same in every run, and as long as the tuned model takes.
            "evaluation.base_model=false",
            "evaluation.bootstrap_resamples=100",
        ]
        config = load_config("quickstart.yaml", overrides)
        if (folder / "config.yaml").exists():
            resume(folder, Silent())
        else:
            train(config, folder, Silent())
    models = json.loads(results.read_text())["models"]
    return float(models["tuned"]["mrr"]["value"])


def main() -> None:
    """Run what is not done yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", "-o", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--clients", type=int, default=20)
    arguments = parser.parse_args()
    print(f"| aggregator | {' | '.join(ATTACKS)} |")
    print("|---|" + "---|" * len(ATTACKS))
    for label, (strategy, ratio) in AGGREGATORS.items():
        row = []
        for attack in ATTACKS:
            name = f"{label.replace(' ', '_').replace(',', '')}-{attack}"
            row.append(f"{run(arguments.output / name, strategy, ratio, attack, arguments):.4f}")
        print(f"| {label} | {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
