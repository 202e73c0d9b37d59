"""Measure embeddings: how fast HAKE, RotatE and KBGAT learn, and HAKE beside RotatE on WN18RR.

The speeds are those of one run on the first triples of WN18RR, at one size of vectors and of steps.
With ``--curves FOLDER`` both models are then trained for as many steps, each by the best of several
learning rates, and their filtered MRR is written there as they go; what was interrupted goes on.
Needs WN18RR in $PKGLLM_DATA.

usage: python scripts/bench_kge.py [--json] [--curves FOLDER] [--epochs N] [--dim N]
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pkgllm.errors import StoppedError
from pkgllm.files import write_atomically
from pkgllm.kge.embedding import Embedding
from pkgllm.kge.embeddings.hake import Hake
from pkgllm.kge.embeddings.kbgat import Kbgat
from pkgllm.kge.embeddings.rotate import Rotate
from pkgllm.kge.integer_triples import IntegerTriples
from pkgllm.kge.pykeen_door import Model
from pkgllm.kge.ranks import filtered_metrics
from pkgllm.kge.settings import Schedule
from pkgllm.kge.training import Epoch, TrainingSetup, train_embeddings

Ids = NDArray[np.int64]

SPEED_TRIPLES = 8_192
SPEED = Schedule(epochs=3, batch_size=512, num_negatives=32, learning_rate=1e-3)
RATES = (5e-3, 2e-2, 5e-2)
"""Learning rates of which each model's best is trained to the end."""
CURVE = Schedule(
    epochs=15,
    batch_size=2048,
    num_negatives=32,
    learning_rate=RATES[0],
    decay_every=5,
    decay_factor=0.5,
)
TRIAL_EPOCHS = 3
"""After which the best rate is chosen."""
CURVE_TRIPLES = 300
"""Of the validation, behind each point of a curve."""
CURVE_EVERY = 3
"""Epochs between points."""


def read_wn18rr(folder: Path) -> tuple[IntegerTriples, Ids, Ids]:
    """Return the training triples, and those of the validation and of the test."""
    lines = {
        part: [line.split("\t") for line in (folder / f"{part}.txt").read_text().splitlines()]
        for part in ("train", "valid", "test")
    }
    entities = sorted(
        {e for part in lines.values() for head, _, tail in part for e in (head, tail)}
    )
    relations = sorted({relation for _, relation, _ in lines["train"]})
    entity = {name: number for number, name in enumerate(entities)}
    relation = {name: number for number, name in enumerate(relations)}
    train, valid, test = (
        np.array([(entity[h], relation[r], entity[t]) for h, r, t in part])
        for part in lines.values()
    )
    return IntegerTriples(train, len(entities), len(relations)), valid, test


def speed(choice: Embedding, triples: IntegerTriples) -> dict[str, float]:
    """Return training triples a second by stage, of all epochs but the first of each."""
    ends: dict[str, list[float]] = {}

    def on_epoch(epoch: Epoch) -> None:
        ends.setdefault(epoch.stage, []).append(time.perf_counter())

    train_embeddings(choice, triples, TrainingSetup(seed=0, on_epoch=on_epoch))
    return {
        stage: len(triples.triples) * (len(times) - 1) / (times[-1] - times[0])
        for stage, times in ends.items()
    }


def speeds(triples: IntegerTriples, dim: int) -> dict[str, object]:
    """Return the speeds of all models on some first triples."""
    few = IntegerTriples(
        triples.triples[:SPEED_TRIPLES], triples.num_entities, triples.num_relations
    )
    kbgat = Kbgat(
        transe_dim=dim,
        dim=dim // 2,
        heads=2,
        transe_schedule=SPEED,
        attention_schedule=replace(SPEED, batch_size=None, num_negatives=2),
        decoder_schedule=SPEED,
        filters=10,
    )
    hake, rotate = (
        speed(choice, few)[choice.name]
        for choice in (Hake(dim=dim, schedule=SPEED), Rotate(dim=dim, schedule=SPEED))
    )
    return {
        "triples_per_second": {"hake": hake, "rotate": rotate, "kbgat": speed(kbgat, few)},
        "ratios": {"hake_vs_rotate": hake / rotate},
        "dim": dim,
        "batch_size": SPEED.batch_size,
        "num_negatives": SPEED.num_negatives,
        "triples": len(few.triples),
    }


@dataclass(frozen=True)
class Curves:
    """What models are trained on and asked, and where what they have come to is kept."""

    triples: IntegerTriples
    valid: Ids
    test: Ids
    folder: Path

    def of(self, choice: Hake | Rotate) -> dict[str, object]:
        """Train a model by the best of several learning rates.

        Returns:
            - ``rates``: MRR of some of the validation after the trial's epochs, by learning rate;
            - ``learning_rate``: of the largest, which was trained to the end;
            - ``mrr_by_steps``: of the same validation triples;
            - ``test``: metrics of the whole test.
        """
        choices = {
            rate: replace(choice, schedule=replace(choice.schedule, learning_rate=rate))
            for rate in RATES
        }
        trial = min(TRIAL_EPOCHS, choice.schedule.epochs)
        rates = {rate: self._points(choices[rate], trial)[trial] for rate in RATES}
        best = max(RATES, key=lambda rate: rates[rate])
        points = self._points(choices[best], choice.schedule.epochs)
        model = self._train(choices[best], points, choice.schedule.epochs)
        steps = -(-len(self.triples.triples) // (choice.schedule.batch_size or 1))
        return {
            "rates": {str(rate): mrr for rate, mrr in rates.items()},
            "learning_rate": best,
            "mrr_by_steps": {str(epoch * steps): mrr for epoch, mrr in points.items()},
            "test": self._metrics(model, self.test),
        }

    def _points(self, choice: Hake | Rotate, epochs: int) -> dict[int, float]:
        """Return MRR of some of the validation by epoch, trained as far as is needed."""
        path = self._place(choice) / "curve.json"
        points: dict[int, float] = {}
        if path.exists():
            points = {int(epoch): mrr for epoch, mrr in json.loads(path.read_text()).items()}
        if epochs not in points:
            with suppress(StoppedError):
                self._train(choice, points, epochs)
        return points

    def _train(self, choice: Hake | Rotate, points: dict[int, float], epochs: int) -> Model:
        """Return a trained model, from where it was; before its last epoch it stops by an error."""
        some = np.random.default_rng(0).choice(len(self.valid), size=CURVE_TRIPLES, replace=False)
        folder = self._place(choice)
        folder.mkdir(parents=True, exist_ok=True)
        last = 0

        def on_epoch(epoch: Epoch) -> None:
            nonlocal last
            last = epoch.number
            if last % CURVE_EVERY and last != epochs:
                return
            points[last] = self._metrics(epoch.model.eval(), self.valid[some])["mrr"]
            write_atomically(folder / "curve.json", json.dumps(points))
            told = f"{choice.name}, learning rate {choice.schedule.learning_rate}, epoch {last}"
            print(f"{told}: {points[last]:.4f}", file=sys.stderr)

        setup = TrainingSetup(
            seed=0, folder=folder, on_epoch=on_epoch, stop_asked=lambda: last >= epochs
        )
        return train_embeddings(choice, self.triples, setup)

    def _metrics(self, model: Model, asked: Ids) -> dict[str, float]:
        return filtered_metrics(model, asked, [self.triples.triples, self.valid, self.test])

    def _place(self, choice: Hake | Rotate) -> Path:
        return self.folder / choice.name / str(choice.schedule.learning_rate)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print tables, or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="print one object instead")
    parser.add_argument("--curves", type=Path, help="train on WN18RR, and keep it in this folder")
    parser.add_argument("--epochs", type=int, default=CURVE.epochs, help="of each model's curve")
    parser.add_argument("--dim", type=int, default=64, help="numbers in a vector")
    given = parser.parse_args(arguments)
    triples, valid, test = read_wn18rr(Path(os.environ["PKGLLM_DATA"]) / "wn18rr")
    measured = speeds(triples, given.dim)
    if given.curves:
        schedule = replace(CURVE, epochs=given.epochs)
        measured["curves"] = {
            choice.name: Curves(triples, valid, test, given.curves).of(choice)
            for choice in (
                Hake(
                    dim=given.dim,
                    margin=6.0,
                    phase_weight=0.5,
                    modulus_weight=0.5,
                    temperature=0.5,
                    schedule=schedule,
                ),
                Rotate(dim=given.dim, margin=6.0, temperature=0.5, schedule=schedule),
            )
        }
    measured["machine"] = f"{os.cpu_count()} cores, {torch.get_num_threads()} used"
    if given.json:
        print(json.dumps(measured))
        return
    print(f"{datetime.now(UTC):%Y-%m-%d}, {measured['machine']}\n")
    print(json.dumps(measured, indent=2))


if __name__ == "__main__":
    main()
