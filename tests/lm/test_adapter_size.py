from pathlib import Path

import pytest

from pkgllm.errors import ModelError
from pkgllm.lm.adapter import attach_adapter
from pkgllm.lm.adapter_size import num_trained_parameters
from pkgllm.lm.base_model import load_base_model


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
