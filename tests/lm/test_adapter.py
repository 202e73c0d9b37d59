from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from pkgllm.errors import ModelError
from pkgllm.lm.adapter import (
    AdapterState,
    adapter_state,
    attach_adapter,
    load_adapter,
    load_adapter_state,
    num_trained_parameters,
    save_adapter,
    update_norm,
)
from pkgllm.lm.base_model import BaseModel, load_base_model

IDS = torch.tensor([[5, 6, 7, 8]])


def attach(base: BaseModel, seed: int = 0) -> PeftModel:
    return attach_adapter(
        base.model, lora_rank=4, lora_alpha=8, target_modules="all-linear", seed=seed
    )


def trained(policy: PeftModel) -> PeftModel:
    state = adapter_state(policy)
    generator = torch.Generator().manual_seed(3)
    load_adapter_state(
        policy, {k: torch.randn(v.shape, generator=generator) for k, v in state.items()}
    )
    return policy


@torch.no_grad()
def test_a_fresh_adapter_changes_nothing_and_is_seeded(tiny_base_folder: Path) -> None:
    bases = [load_base_model(str(tiny_base_folder)) for _ in range(3)]
    before = bases[0].model(IDS).logits
    random_state = torch.get_rng_state()
    first, same, other = (attach(b, s) for b, s in zip(bases, (0, 0, 1), strict=True))
    assert torch.equal(torch.get_rng_state(), random_state)
    torch.testing.assert_close(first(IDS).logits, before)
    a, b, c = (adapter_state(policy) for policy in (first, same, other))
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert any(not torch.equal(a[key], c[key]) for key in a)
    assert not any("lm_head" in key or "embed" in key for key in a)


def test_state_is_a_copy_and_goes_back_in(tiny_base: BaseModel) -> None:
    policy = attach(tiny_base)
    start = adapter_state(policy)
    end = adapter_state(trained(policy))
    assert list(end) == sorted(end)
    assert any(not torch.equal(start[key], end[key]) for key in start)
    load_adapter_state(policy, start)
    again = adapter_state(policy)
    assert all(torch.equal(again[key], start[key]) for key in start)


@torch.no_grad()
def test_peft_loads_what_we_save(
    tiny_base: BaseModel, tiny_base_folder: Path, tmp_path: Path
) -> None:
    policy = trained(attach(tiny_base))
    save_adapter(policy, tmp_path / "adapter")
    ours = policy(IDS).logits
    loaded = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(tiny_base_folder), str(tmp_path / "adapter")
    )
    torch.testing.assert_close(loaded(IDS).logits, ours)
    fresh = load_base_model(str(tiny_base_folder))
    assert not torch.allclose(fresh.model(IDS).logits, ours)
    torch.testing.assert_close(load_adapter(fresh.model, tmp_path / "adapter")(IDS).logits, ours)


def test_a_state_that_does_not_fit_is_refused(tiny_base: BaseModel) -> None:
    policy = attach(tiny_base)
    state = adapter_state(policy)
    first = next(iter(state))
    with pytest.raises(ModelError, match="1 keys missing"):
        load_adapter_state(policy, {k: v for k, v in state.items() if k != first})
    with pytest.raises(ModelError, match=r"1 foreign \['x'\]"):
        load_adapter_state(policy, state | {"x": torch.zeros(1)})
    with pytest.raises(ModelError, match=r"must have shape .*, got \(1,\)"):
        load_adapter_state(policy, state | {first: torch.zeros(1)})


def test_unknown_layers_and_folders_are_named(tiny_base: BaseModel, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"adapter\.target_modules"):
        attach_adapter(tiny_base.model, lora_rank=2, lora_alpha=2, target_modules=("nope",), seed=0)
    with pytest.raises(ModelError, match=r"adapter_config\.json is missing"):
        load_adapter(tiny_base.model, tmp_path)


@pytest.mark.parametrize("layer", ["embed_tokens", "lm_head"])
def test_embedding_and_head_take_no_adapter(tiny_base: BaseModel, layer: str) -> None:
    with pytest.raises(ModelError, match=rf"target_modules: .*{layer} cannot have an adapter"):
        attach_adapter(
            tiny_base.model, lora_rank=2, lora_alpha=2, target_modules=("q_proj", layer), seed=0
        )


def test_every_name_that_matches_no_layer_is_named(tiny_base: BaseModel) -> None:
    with pytest.raises(ModelError, match=r"has no layer nope, q; name"):
        attach_adapter(
            tiny_base.model,
            lora_rank=2,
            lora_alpha=2,
            target_modules=("nope", "q_proj", "q"),
            seed=0,
        )


SPOILT: dict[str, tuple[Callable[[AdapterState], AdapterState], str]] = {
    "no tensors": (lambda state: {}, "28 keys missing"),
    "some missing": (lambda state: dict(list(state.items())[3:]), "3 keys missing"),
    "foreign": (lambda state: {**state, "x": torch.zeros(1)}, "1 foreign"),
    "other shape": (lambda state: {k: v[:1] for k, v in state.items()}, "does not load|shape"),
    "whole numbers": (lambda state: {k: v.int() for k, v in state.items()}, "floating-point"),
    "not finite": (lambda state: {k: v / 0 for k, v in state.items()}, "finite"),
}


@pytest.mark.parametrize("fault", SPOILT)
def test_a_saved_adapter_that_does_not_fit_is_refused(
    tiny_base: BaseModel, tiny_base_folder: Path, tmp_path: Path, fault: str
) -> None:
    policy = attach(tiny_base)
    save_adapter(policy, tmp_path)
    spoil, reason = SPOILT[fault]
    save_file(spoil(adapter_state(policy)), tmp_path / "adapter_model.safetensors")
    with pytest.raises(ModelError, match=reason):
        load_adapter(load_base_model(str(tiny_base_folder)).model, tmp_path)


def test_update_norm_by_hand() -> None:
    # sqrt((4-1)^2 + (2-(-2))^2) = sqrt(9 + 16) = 5.
    before = {"a": torch.tensor([1.0]), "b": torch.tensor([[-2.0]])}
    after = {"a": torch.tensor([4.0]), "b": torch.tensor([[2.0]])}
    assert update_norm(before, after) == 5.0


@pytest.mark.parametrize("freeze_a", [False, True])
@pytest.mark.parametrize("target_modules", ["all-linear", ("q_proj", "v_proj")])
def test_it_is_the_size_of_the_real_adapter(
    tiny_base_folder: Path, target_modules: tuple[str, ...] | str, freeze_a: bool
) -> None:
    policy = attach_adapter(
        load_base_model(str(tiny_base_folder), device="cpu").model,
        lora_rank=3,
        lora_alpha=6.0,
        target_modules=target_modules,
        seed=0,
        freeze_a=freeze_a,
    )
    actual = num_trained_parameters(
        str(tiny_base_folder), lora_rank=3, target_modules=target_modules, freeze_a=freeze_a
    )
    assert actual == sum(p.numel() for p in policy.parameters() if p.requires_grad)


def test_a_broken_configuration_is_told(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"base_model\.name: cannot read the configuration"):
        num_trained_parameters(
            str(tmp_path), lora_rank=1, target_modules="all-linear", freeze_a=False
        )
