"""The TRL engine: each client trains by one of TRL's own trainers, one client after the other.

It is slow and familiar, takes any causal model, and minimises what the sequential engine minimises:
prompts and completions go in as token ids, each step holds the same groups, TRL's collator pads
them, and the reference is the frozen base model.
"""

import copy
import math
import random
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from pkgllm.errors import ConfigError, ModelError
from pkgllm.lm.adapter import AdapterState, adapter_state, load_adapter_state, trained_parameters
from pkgllm.objectives.objective import Objective, TrlCounterpart
from pkgllm.prompts.groups import Group
from pkgllm.training.batches import draw_batches
from pkgllm.training.client_by_client import ClientByClient
from pkgllm.training.local import LocalSteps, TrainedClient, loss_not_finite
from pkgllm.training.local_terms import add_terms

Row = dict[str, Any]

_OPTIMIZERS = {"adamw": "adamw_torch", "sgd": "sgd"}


def rows_of(groups: Sequence[Group], counterpart: TrlCounterpart) -> list[Row]:
    """Return a step's groups as rows of a tokenised data set of TRL's.

    A group's mismatched completions go to its rows in turn, as many times as there are rows.

    Example:
        >>> from pkgllm.objectives.dpo import Dpo
        >>> rows_of([], Dpo().trl)
        []
    """
    match counterpart.examples:
        case "completions":
            return [row for group in groups for row in _completion_rows(group)]
        case "pairs" | "matched_pairs":
            return [
                {"prompt_ids": [*group.prompt.token_ids], "chosen_ids": c, "rejected_ids": r}
                for group in groups
                for c, r in _pairs(group, matched=counterpart.examples == "matched_pairs")
            ]
        case "desirable":
            return [
                {
                    "input_ids": [*group.prompt.token_ids, *completion.token_ids],
                    "labels": [-100] * len(group.prompt.token_ids) + [*completion.token_ids],
                }
                for group in groups
                for completion in group.completions
                if completion.desirable
            ]


def _completion_rows(group: Group) -> Iterator[Row]:
    for index, completion in enumerate(group.completions):
        row: Row = {
            "prompt_ids": [*group.prompt.token_ids],
            "completion_ids": [*completion.token_ids],
            "label": completion.desirable,
        }
        if group.mismatched:
            mismatched = group.mismatched[index % len(group.mismatched)]
            row["KL_completion_ids"] = [*mismatched.token_ids]
        yield row


def _pairs(group: Group, *, matched: bool) -> list[tuple[list[int], list[int]]]:
    desirable, undesirable = (
        [[*c.token_ids] for c in group.completions if c.desirable == label]
        for label in (True, False)
    )
    if matched:
        return list(zip(desirable, undesirable, strict=False))
    return [(c, r) for c in desirable for r in undesirable]


def check_trl(objective: Objective) -> tuple[TrlCounterpart, ModuleType]:
    """Return an objective's counterpart in TRL, and TRL.

    Raises:
        ConfigError: If TRL is not installed, or the objective has no counterpart in it.
    """
    counterpart = objective.trl
    if counterpart is None:
        raise ConfigError(
            f"training.engine trl needs an objective that TRL has too, got {objective}; use "
            "another objective or other weights, or engine lanes or sequential"
        )
    try:
        return counterpart, import_module("trl")
    except ImportError as error:
        raise ConfigError(
            "training.engine trl needs the package trl, which is not installed; run "
            "pip install 'pkgllm[trl]'"
        ) from error


class TrlTrainer(ClientByClient):
    """Trains clients one at a time with a trainer of TRL's; each starts from what it receives.

    Equal to :class:`~pkgllm.training.sequential.SequentialTrainer` where all groups of a step have
    the same number of examples: TRL takes the mean over examples, not over groups. A step without
    an example, such as a pair, is left out.

    TRL reads from the tokenizer which token pads.

    Raises:
        ConfigError: If TRL is not installed, or the objective has no counterpart in it.
    """

    def __init__(
        self,
        policy: PeftModel,
        groups: Mapping[str, Sequence[Group]],
        objective: Objective,
        tokenizer: PreTrainedTokenizerBase,
        *,
        steps: LocalSteps,
        seed: int,
    ) -> None:
        counterpart, trl = check_trl(objective)
        self._trainer_class = _quiet_trainer(getattr(trl, counterpart.trainer))
        self._config_class = getattr(trl, counterpart.trainer.replace("Trainer", "Config"))
        self._counterpart = counterpart
        # TRL gives a tokenizer without a padding token one.
        self._tokenizer = copy.deepcopy(tokenizer)
        super().__init__(policy, groups, objective, steps=steps, seed=seed)

    def train_client(
        self,
        client: str,
        adapter: AdapterState,
        round_num: int,
        learning_rate: float,
        *,
        proximal_mu: float,
        kl_baseline: float | None,
        correction: AdapterState | None,
    ) -> TrainedClient:
        """Take a client's local steps; TRL computes a KL baseline of its own, if any."""
        load_adapter_state(self._policy, adapter)
        groups = self._groups[client]
        batches = draw_batches(
            groups, steps=self._steps, seed=self._seed, client=client, round_num=round_num
        )
        steps = [rows for batch in batches if (rows := rows_of(batch, self._counterpart))]
        if not steps:
            return TrainedClient(adapter_state(self._policy), len(groups), 0.0)
        with TemporaryDirectory() as folder, _left_as_it_was(self._policy):
            trained = trained_parameters(self._policy)
            trainer = self._make_trainer(folder, steps, learning_rate)
            trainer.add_terms = lambda: add_terms(
                trained, adapter, proximal_mu=proximal_mu, correction=correction
            )
            loss = trainer.train().training_loss
        if not math.isfinite(loss):
            raise loss_not_finite(client, round_num, loss)
        return TrainedClient(
            adapter_state(self._policy), len(groups), loss * len(steps) / self._steps.local_steps
        )

    def _make_trainer(self, folder: str, steps: list[list[Row]], learning_rate: float) -> Any:
        from datasets import Dataset

        config = self._config_class(
            output_dir=folder,
            max_steps=len(steps),
            # KTO's needs at least 2; the steps themselves come from elsewhere.
            per_device_train_batch_size=2,
            max_length=None,
            optim=_OPTIMIZERS[self._steps.optimizer],
            learning_rate=learning_rate,
            lr_scheduler_type="constant",
            weight_decay=self._steps.weight_decay,
            max_grad_norm=self._steps.max_grad_norm,
            bf16=False,
            gradient_checkpointing=False,
            use_cpu=self._policy.device.type == "cpu",
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            logging_nan_inf_filter=False,
            disable_tqdm=True,
            **self._counterpart.settings,
        )
        trainer = self._trainer_class(
            model=self._policy,
            args=config,
            train_dataset=Dataset.from_list(steps[0]),
            processing_class=self._tokenizer,
        )
        # TRL takes the adapter that it is handed as the reference, in a copy named "ref"; without
        # the copy, its reference is the base model with the adapter switched off.
        if "ref" in self._policy.peft_config:
            self._policy.delete_adapter("ref")
        if getattr(trainer, "ref_model", None) is not None or len(self._policy.peft_config) != 1:
            raise ModelError(
                f"TRL's {self._counterpart.trainer} must take the base model as its reference, got "
                f"adapters {sorted(self._policy.peft_config)}; install another version of trl"
            )
        trainer.steps = steps
        return trainer


def _quiet_trainer(parent: Any) -> Any:
    """Return a trainer of TRL's that takes steps of token ids, and reports to nobody."""
    from transformers import PrinterCallback, TrainerCallback

    class Terms(TrainerCallback):
        """Calls what adds terms to a gradient after it is clipped."""

        def __init__(self, trainer: Any) -> None:
            self._trainer = trainer

        def on_pre_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
            self._trainer.add_terms()

    class QuietTrainer(parent):  # type: ignore[misc]  # TRL is untyped
        steps: Sequence[Sequence[Row]]
        add_terms: Callable[[], None]

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.remove_callback(PrinterCallback)
            self.add_callback(Terms(self))
            self._frozen = [p for p in self.model.parameters() if not p.requires_grad]

        def _send_telemetry(self) -> None:
            """Send nothing."""

        def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
            return dataset

        def get_train_dataloader(self) -> Any:
            return torch.utils.data.DataLoader(
                self.steps,  # type: ignore[arg-type]  # a sequence will do
                batch_size=None,
                collate_fn=self.data_collator,
            )

        def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
            batches, _ = super().get_batch_samples(*args, **kwargs)
            # SFT's sum over tokens is divided by this: by rows, so that it is the mean over them.
            return batches, sum(len(batch["input_ids"]) for batch in batches)

        def training_step(self, *args: Any, **kwargs: Any) -> Any:
            loss = super().training_step(*args, **kwargs)
            # To switch an adapter off and on makes PEFT train all of it.
            for parameter in self._frozen:
                parameter.grad = None
                parameter.requires_grad_(False)
            return loss

    return QuietTrainer


@contextmanager
def _left_as_it_was(policy: PeftModel) -> Iterator[None]:
    """Undo what TRL does to a policy and to global generators, but for the adapter's values."""
    base = policy.get_base_model()
    forward, training = vars(base).get("forward"), policy.training
    trains = {parameter: parameter.requires_grad for parameter in policy.parameters()}
    states = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(), warnings.catch_warnings():
            # Of transformers', about names that TRL uses.
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        # TRL computes log-probabilities in a forward pass of its own.
        vars(base).pop("forward", None)
        if forward is not None:
            vars(base)["forward"] = forward
        policy.train(training)
        if "ref" in policy.peft_config:
            policy.delete_adapter("ref")
        for parameter, was_trained in trains.items():
            parameter.requires_grad_(was_trained)
            parameter.grad = None
