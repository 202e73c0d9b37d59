import json
import shutil
from pathlib import Path

import pytest
import torch

from pkgllm.errors import ModelError
from pkgllm.lm.base_model import find_base_model, find_device, load_base_model


def test_names_are_looked_up_in_order(
    tiny_base_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("models/mine", "work/data/models/mine"):
        shutil.copytree(tiny_base_folder, tmp_path / place)
    (tmp_path / "work").mkdir(exist_ok=True)
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.delenv("PKGLLM_MODELS", raising=False)
    assert find_base_model("mine") == "data/models/mine"
    monkeypatch.setenv("PKGLLM_MODELS", str(tmp_path / "models"))
    assert find_base_model("mine") == str(tmp_path / "models/mine")
    assert find_base_model(str(tiny_base_folder)) == str(tiny_base_folder)
    assert find_base_model("Qwen/Qwen3-0.6B") == "Qwen/Qwen3-0.6B"
    with pytest.raises(ModelError, match=r"no base model 'other'; looked for other, .*set PK"):
        find_base_model("other")


def test_the_base_is_frozen_and_knows_its_digest(tiny_base_folder: Path, tmp_path: Path) -> None:
    base = load_base_model(str(tiny_base_folder), device="cpu")
    assert not any(p.requires_grad for p in base.model.parameters())
    assert not base.model.training
    assert base.tokenizer.decode([base.terminator_id]) == "<|im_end|>"
    assert base.max_positions == 1024
    shutil.copytree(tiny_base_folder, tmp_path / "copy")
    assert load_base_model(str(tmp_path / "copy")).digest == base.digest
    assert load_base_model(str(tiny_base_folder), dtype="bfloat16").model.dtype == torch.bfloat16


def break_no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def break_json(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "qwen3"')


def break_weights(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])


def break_architecture(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "no-such-model"}))


def break_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")


def break_template(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (break_no_config, r"is not a base model, because config\.json is missing"),
        (break_json, "cannot load"),
        (break_weights, "cannot load"),
        (break_architecture, "cannot load"),
        (break_tokenizer, "cannot load"),
        (break_template, "must have a tokenizer with a chat template"),
    ],
)
def test_a_damaged_folder_is_one_sentence(
    damage: object, reason: str, tiny_base_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_base_folder, tmp_path / "model")
    assert callable(damage)
    damage(tmp_path / "model")
    with pytest.raises(ModelError, match=reason) as raised:
        load_base_model(str(tmp_path / "model"))
    assert "\n" not in str(raised.value)


def test_devices() -> None:
    assert find_device("cpu") == torch.device("cpu")
    for name in ("gpu", "cuda:x", "tpu:0", ""):
        with pytest.raises(ModelError, match="must be auto, cpu, cuda or cuda:N"):
            find_device(name)
    missing = torch.cuda.device_count()
    with pytest.raises(ModelError, match=rf"has \d+ usable GPUs, got cuda:{missing}; set"):
        find_device(f"cuda:{missing}")
