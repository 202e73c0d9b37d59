"""Loss and gradient equal TRL's own trainers, called live on the same token ids."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DataCollatorForPreference, DPOTrainer
from trl.trainer.kto_config import KTOConfig
from trl.trainer.kto_trainer import DataCollatorForUnpairedPreference, KTOTrainer

from pkgllm.lm.adapter import adapter_state, attach_adapter, load_adapter_state
from pkgllm.lm.base_model import BaseModel
from pkgllm.objectives.apo_zero import ApoZero
from pkgllm.objectives.dpo import Dpo
from pkgllm.objectives.kto import Kto
from pkgllm.objectives.objective import Objective
from pkgllm.objectives.sdpo import Sdpo
from pkgllm.prompts.groups import Completion, Group
from pkgllm.prompts.prompts import Prompt
from pkgllm.training.reference import ReferenceColumn
from pkgllm.training.sequential import reference_scorer, score

Ids = tuple[int, ...]

BETA = 0.7
PROMPTS: list[Ids] = [(5, 9, 11, 40), (6, 8), (30, 31, 32, 33, 34, 35), (77, 12, 5)]
COMPLETIONS: list[Ids] = [(20, 21, 2), (22, 2), (23, 24, 25, 26, 2), (90, 91, 2)]
OTHERS: list[Ids] = [(50, 2), (51, 52, 53, 2), (54, 55, 2), (56, 2)]
LABELS = [True, False, False, True]


def a_prompt(ids: Ids) -> Prompt:
    return Prompt("client", "", "", ids, frozenset(), 0)


def a_completion(ids: Ids, *, desirable: bool) -> Completion:
    return Completion("item", ids, desirable, "liked" if desirable else "uniform")


def our_loss_and_gradient(
    base: BaseModel, theirs: PeftModel, groups: list[Group], objective: Objective
) -> tuple[float, dict[str, torch.Tensor]]:
    policy = attach_adapter(
        base.model, lora_rank=4, lora_alpha=8, target_modules="all-linear", seed=0
    )
    load_adapter_state(policy, adapter_state(theirs))
    reference = ReferenceColumn(reference_scorer(policy))
    loss = objective.loss(score(policy, groups, objective, reference))
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.item(), gradients(policy)


def gradients(policy: PeftModel) -> dict[str, torch.Tensor]:
    return {n: p.grad for n, p in policy.named_parameters() if p.grad is not None}


def trl_trainer(
    trainer: Callable[..., Any],
    config: KTOConfig | DPOConfig,
    folder: Path,
    rows: dict[str, list[Any]],
) -> Any:
    made = trainer(
        model=AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
        args=config,
        processing_class=AutoTokenizer.from_pretrained(folder),
        train_dataset=Dataset.from_dict(rows),
        peft_config=LoraConfig(
            r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"
        ),
    )
    generator = torch.Generator().manual_seed(1)
    for name, parameter in made.model.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(0, 0.2, generator=generator)
    return made


def settings(tmp_path: Path, **more: Any) -> dict[str, Any]:
    return {
        "output_dir": str(tmp_path),
        "beta": BETA,
        "bf16": False,
        "use_cpu": True,
        "gradient_checkpointing": False,
        "report_to": [],
        "per_device_train_batch_size": 4,
        **more,
    }


@pytest.mark.parametrize(
    ("loss_type", "objective"),
    [("kto", Kto), ("apo_zero_unpaired", ApoZero)],
)
def test_kto_and_apo_zero(
    loss_type: str,
    objective: Callable[..., Objective],
    tiny_base: BaseModel,
    tiny_base_folder: Path,
    tmp_path: Path,
) -> None:
    rows: dict[str, list[Any]] = {
        "prompt": ["a", "b"],
        "completion": ["c", "d"],
        "label": [True, False],
    }
    trainer = trl_trainer(
        KTOTrainer,
        KTOConfig(
            **settings(tmp_path, loss_type=loss_type, desirable_weight=1.3, undesirable_weight=0.6)
        ),
        tiny_base_folder,
        rows,
    )
    kl = {"KL_completion_ids": OTHERS} if loss_type == "kto" else {}
    columns: dict[str, Any] = {
        "prompt_ids": PROMPTS,
        "completion_ids": COMPLETIONS,
        "label": LABELS,
        **kl,
    }
    batch = DataCollatorForUnpairedPreference(pad_token_id=0)(
        [
            {
                key: list(v) if isinstance(v, tuple) else v
                for key, v in zip(columns, row, strict=True)
            }
            for row in zip(*columns.values(), strict=True)
        ]
    )
    their_loss = trainer._compute_loss(trainer.model, batch, False)
    their_loss.backward()

    groups = [
        Group(
            a_prompt(prompt),
            (a_completion(completion, desirable=label),),
            (a_completion(other, desirable=label),),
        )
        for prompt, completion, other, label in zip(
            PROMPTS, COMPLETIONS, OTHERS, LABELS, strict=True
        )
    ]
    our_loss, ours = our_loss_and_gradient(
        tiny_base,
        trainer.model,
        groups,
        objective(beta=BETA, desirable_weight=1.3, undesirable_weight=0.6, nll_weight=0.0),
    )
    assert_equal(our_loss, ours, their_loss.item(), gradients(trainer.model))


@pytest.mark.parametrize(
    "objective",
    [
        Dpo(beta=BETA, nll_weight=0.0),
        Dpo(beta=BETA, nll_weight=0.0, pairs="matched"),
        Sdpo(beta=BETA, nll_weight=0.0),
    ],
    ids=["dpo", "dpo-matched", "sdpo"],
)
def test_dpo_on_one_pair_for_each_prompt(
    objective: Objective, tiny_base: BaseModel, tiny_base_folder: Path, tmp_path: Path
) -> None:
    trainer = dpo_trainer(tiny_base_folder, tmp_path)
    their_loss = loss_of_pairs(trainer, list(zip(PROMPTS, COMPLETIONS, OTHERS, strict=True)))

    groups = [
        Group(a_prompt(p), (a_completion(c, desirable=True), a_completion(r, desirable=False)))
        for p, c, r in zip(PROMPTS, COMPLETIONS, OTHERS, strict=True)
    ]
    our_loss, ours = our_loss_and_gradient(tiny_base, trainer.model, groups, objective)
    assert_equal(our_loss, ours, their_loss, gradients(trainer.model))


def test_matched_dpo_on_two_pairs_for_each_prompt(
    tiny_base: BaseModel, tiny_base_folder: Path, tmp_path: Path
) -> None:
    first, second = PROMPTS[:2]
    d, u = COMPLETIONS, OTHERS
    trainer = dpo_trainer(tiny_base_folder, tmp_path)
    their_loss = loss_of_pairs(
        trainer,
        [(first, d[0], u[0]), (first, d[1], u[1]), (second, d[2], u[2]), (second, d[3], u[3])],
    )

    over = (60, 61, 2)
    groups = [
        Group(
            a_prompt(first),
            (
                a_completion(u[0], desirable=False),
                a_completion(d[0], desirable=True),
                a_completion(u[1], desirable=False),
                a_completion(over, desirable=False),
                a_completion(d[1], desirable=True),
            ),
        ),
        Group(
            a_prompt(second),
            (
                *(a_completion(ids, desirable=True) for ids in (d[2], d[3], over)),
                *(a_completion(ids, desirable=False) for ids in (u[2], u[3])),
            ),
        ),
    ]
    our_loss, ours = our_loss_and_gradient(
        tiny_base,
        trainer.model,
        groups,
        Dpo(beta=BETA, nll_weight=0.0, pairs="matched"),
    )
    assert_equal(our_loss, ours, their_loss, gradients(trainer.model))


def dpo_trainer(folder: Path, tmp_path: Path) -> Any:
    rows = {"prompt": ["a", "b"], "chosen": ["c", "d"], "rejected": ["e", "f"]}
    return trl_trainer(DPOTrainer, DPOConfig(**settings(tmp_path)), folder, rows)


def loss_of_pairs(trainer: Any, pairs: list[tuple[Ids, Ids, Ids]]) -> float:
    """TRL's loss of (prompt, desirable, undesirable) in one batch; leaves its gradient behind."""
    batch = DataCollatorForPreference(pad_token_id=0)(
        [
            {"prompt_ids": list(p), "chosen_ids": list(c), "rejected_ids": list(r)}
            for p, c, r in pairs
        ]
    )
    loss = trainer._compute_loss(trainer.model, batch, False)
    loss.backward()
    return float(loss.detach())


def assert_equal(
    our_loss: float,
    ours: dict[str, torch.Tensor],
    their_loss: float,
    theirs: dict[str, torch.Tensor],
) -> None:
    assert our_loss == pytest.approx(their_loss, rel=1e-5)
    assert max(g.abs().max().item() for g in theirs.values()) > 1e-4
    assert ours.keys() == theirs.keys()
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, theirs[name], atol=1e-6, rtol=1e-4)
