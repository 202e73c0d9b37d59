"""TRL as its users have it: one KTOTrainer or DPOTrainer per client and round.

TRL tokenises text itself and takes no token ids, so it gets text of words that have known tokens.

Two ways of starting from a round's adapter look alike. A trainer that gets a model with an adapter
takes a copy of that adapter as reference, so the reference would move from round to round. One that
gets the bare model and a LoRA configuration compares with the model without adapter; the round's
values are then put into its fresh adapter.

Tried on one client with prompts of 300 and 500 tokens and ``qwen3-mini``, float32, one thread, CPU
seconds of one step, the trainer's making included:

| KTO, 32 examples at once | s | DPO, 16 pairs | s |
|---|---|---|---|
| as is | 30.7 | 16 at once | 21.2 |
| gradient checkpointing | 26.4 | 8, twice | 14.2 |
| reference computed before | 32.3 | 4, four times | 11.4 |
| both | 26.8 | 2, eight times | 10.9 |
| | | 1, sixteen times | 11.1 |
| | | 2, eight times, reference computed before | 11.3 |

With both cores of an otherwise idle machine and the making included, KTO did 1.88 examples a second
with gradient checkpointing, 1.69 as is, 2.19 with the reference computed before and checkpointing,
and 1.92 with the reference computed before and none.

Fewer at once take less memory, and fresh memory is dear. KTO has no choice: its KL baseline is that
of a batch, so smaller ones have other losses (8 batches of 4 took 18.9 s).
"""

import copy
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from datasets import Dataset, disable_progress_bars
from peft import LoraConfig
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.kto_config import KTOConfig
from trl.trainer.kto_trainer import KTOTrainer

from pkgllm.lm.adapter import AdapterState, adapter_state, load_adapter_state
from pkgllm.prompts.groups import Group
from pkgllm.training.local import TrainedClient
from training_bench.workload import (
    BETA,
    EXAMPLES_PER_CLIENT,
    LORA_ALPHA,
    LORA_RANK,
    MAX_GRAD_NORM,
    ObjectiveName,
)

Rows = dict[str, list[Any]]

FASTEST: Mapping[ObjectiveName, Mapping[str, Any]] = {
    "kto": {
        "per_device_train_batch_size": EXAMPLES_PER_CLIENT,
        "gradient_checkpointing": True,
        "precompute_ref_log_probs": True,
    },
    "dpo": {
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": EXAMPLES_PER_CLIENT // 2 // 2,
        "gradient_checkpointing": False,
        # In order, so that a small batch holds pairs of one prompt and needs no padding for it.
        "train_sampling_strategy": "sequential",
    },
}
"""Of what was tried, with the same losses."""


class TrlTrainer:
    """Trains clients with TRL, a trainer for each; a CohortTrainer as ours are.

    Args:
        model: The bare base model; every trainer gets a copy.
        tokenizer: Of the base model.
        groups: Each client's.
        objective: The trainer to use.
        steps: Optimiser steps of a client in a round, over all its examples.
        settings: Of TRL's configuration, in place of :data:`FASTEST`.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        groups: Mapping[str, Sequence[Group]],
        objective: ObjectiveName,
        *,
        steps: int,
        settings: Mapping[str, Any],
    ) -> None:
        disable_progress_bars()
        self._model = model
        self._tokenizer = tokenizer
        self._groups = groups
        self._objective: ObjectiveName = objective
        self._steps = steps
        self._settings = settings
        self.making_seconds: list[float] = []
        """Of each trainer, before its first step."""

    def __call__(
        self,
        adapters: Mapping[str, AdapterState],
        *,
        round_num: int,
        learning_rate: float,
        **terms: Any,
    ) -> dict[str, TrainedClient | Exception]:
        """See :class:`~pkgllm.training.local.CohortTrainer`."""
        with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
            # TRL, PEFT and transformers use names that one of them has deprecated.
            warnings.simplefilter("ignore", FutureWarning)
            return {
                client: self._train(client, adapter, learning_rate, folder)
                for client, adapter in adapters.items()
            }

    def _train(
        self, client: str, adapter: AdapterState, learning_rate: float, folder: str
    ) -> TrainedClient:
        start = time.perf_counter()
        trainer = self._make(self._groups[client], learning_rate, folder)
        load_adapter_state(trainer.model, adapter)
        self.making_seconds.append(time.perf_counter() - start)
        loss = trainer.train().training_loss
        return TrainedClient(adapter_state(trainer.model), len(self._groups[client]), loss)

    def _make(self, groups: Sequence[Group], learning_rate: float, folder: str) -> Any:
        settings: dict[str, Any] = {
            "output_dir": folder,
            "beta": BETA,
            "learning_rate": learning_rate,
            "lr_scheduler_type": "constant",
            "weight_decay": 0.0,
            "max_grad_norm": MAX_GRAD_NORM,
            "max_steps": self._steps,
            "max_length": None,
            "bf16": self._model.dtype == torch.bfloat16,
            "use_cpu": self._model.device.type == "cpu",
            "logging_strategy": "no",
            "save_strategy": "no",
            "report_to": "none",
            "disable_tqdm": True,
            **FASTEST[self._objective],
            **self._settings,
        }
        make_config, make_trainer, make_rows = _PARTS[self._objective]
        trainer = make_trainer(
            # A trainer leaves an adapter, a forward pass and hooks in its model.
            model=copy.deepcopy(self._model),
            args=make_config(**settings),
            processing_class=self._tokenizer,
            train_dataset=Dataset.from_dict(make_rows(groups)),
            peft_config=LoraConfig(
                r=LORA_RANK,
                lora_alpha=LORA_ALPHA,
                lora_dropout=0.0,
                target_modules="all-linear",
                task_type="CAUSAL_LM",
            ),
        )
        trainer.remove_callback(PrinterCallback)
        return trainer


def examples(groups: Sequence[Group]) -> Rows:
    """Return the completions of groups as TRL's KTO takes them, one group after the other in turn.

    TRL moves completions on by one row within a batch for its mismatched pairs. In this order each
    prompt meets every completion of the group before it, and the first those of the last.
    """
    rows: Rows = {"prompt": [], "completion": [], "label": []}
    for completions in zip(*(group.completions for group in groups), strict=True):
        for group, completion in zip(groups, completions, strict=True):
            rows["prompt"].append(group.prompt.text)
            rows["completion"].append(completion.item)
            rows["label"].append(completion.desirable)
    return rows


def pairs(groups: Sequence[Group]) -> Rows:
    """Return the i-th desirable with the i-th undesirable completion of each group."""
    rows: Rows = {"prompt": [], "chosen": [], "rejected": []}
    for group in groups:
        desirable = [c.item for c in group.completions if c.desirable]
        undesirable = [c.item for c in group.completions if not c.desirable]
        rows["prompt"] += [group.prompt.text] * len(desirable)
        rows["chosen"] += desirable
        rows["rejected"] += undesirable
    return rows


_PARTS: Mapping[ObjectiveName, tuple[Any, Any, Callable[[Sequence[Group]], Rows]]] = {
    "kto": (KTOConfig, KTOTrainer, examples),
    "dpo": (DPOConfig, DPOTrainer, pairs),
}
