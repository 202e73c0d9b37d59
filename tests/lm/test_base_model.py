import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pkgllm.errors import ModelError
from pkgllm.lm.base_model import find_device, load_base_model
from pkgllm.lm.model_files import (
    changed_files,
    find_base_model,
    folder_digests,
    resolved_name,
)


def test_names_are_looked_up_in_order(
    tiny_base_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for place in ("models/mine", "work/data/models/mine"):
        shutil.copytree(tiny_base_folder, tmp_path / place)
    (tmp_path / "work").mkdir(exist_ok=True)
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.delenv("PKGLLM_MODELS", raising=False)
    assert find_base_model("mine") == str(tmp_path / "work/data/models/mine")
    assert resolved_name("mine") == "mine"
    assert resolved_name("../models/mine") == str(tmp_path / "models/mine")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolved_name("~/models/mine") == str(tmp_path / "models/mine")
    assert find_base_model("~/models/mine") == str(tmp_path / "models/mine")
    monkeypatch.setenv("PKGLLM_MODELS", str(tmp_path / "models"))
    assert find_base_model("mine") == str(tmp_path / "models/mine")
    assert find_base_model(str(tiny_base_folder)) == str(tiny_base_folder)
    assert find_base_model("Qwen/Qwen3-0.6B") == "Qwen/Qwen3-0.6B"
    assert "no folder Qwen/Qwen3-0.6B" in caplog.text
    assert find_base_model("hub:Qwen/Qwen3-0.6B") == "Qwen/Qwen3-0.6B"
    with pytest.raises(ModelError, match=r"hub:mine must be hub:owner/model"):
        find_base_model("hub:mine")
    (tmp_path / "work" / "bases").mkdir()
    with pytest.raises(ModelError, match=r"looked for bases/tpyo, .*such as hub:bases/tpyo"):
        find_base_model("bases/tpyo")
    with pytest.raises(ModelError, match=r"no base model 'other'; looked for other, .*set PK"):
        find_base_model("other")


def test_the_base_is_frozen_and_knows_its_digest(tiny_base_folder: Path, tmp_path: Path) -> None:
    base = load_base_model(str(tiny_base_folder), device="cpu")
    assert not any(p.requires_grad for p in base.model.parameters())
    assert not base.model.training
    assert base.tokenizer.decode([base.terminator_id]) == "<|im_end|>"
    assert base.max_positions == 1024
    shutil.copytree(tiny_base_folder, tmp_path / "copy")
    assert load_base_model(str(tmp_path / "copy")).digests == base.digests
    assert load_base_model(str(tiny_base_folder), dtype="bfloat16").model.dtype == torch.bfloat16


@pytest.mark.parametrize(
    "name",
    ["config.json", "generation_config.json", "tokenizer.json", "chat_template.jinja"],
)
def test_every_file_that_decides_numbers_has_a_digest(
    name: str, tiny_base_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_base_folder, tmp_path / "model")
    before = folder_digests(tmp_path / "model")
    (tmp_path / "model" / "README.md").write_text("Notes decide nothing.")
    assert changed_files(before, folder_digests(tmp_path / "model")) == []
    path = tmp_path / "model" / name
    path.write_text(path.read_text() + " ")
    now = folder_digests(tmp_path / "model")
    assert changed_files(before, now) == [name]
    path.unlink()
    assert changed_files(before, folder_digests(tmp_path / "model")) == [name]
    # Runs of earlier versions have a digest of the weights alone.
    assert changed_files({"base_model": before["base_model"]}, now) == []
    assert changed_files({"base_model": "other"}, now) == ["the weights"]


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def lose_tensors(folder: Path) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        for key in [key for key in tensors if ".layers.1." in key]:
            del tensors[key]

    change_weights(folder, change)


def add_tensor(folder: Path) -> None:
    change_weights(folder, lambda tensors: tensors.update({"model.extra": torch.zeros(1)}))


def reshape_tensor(folder: Path) -> None:
    change_weights(folder, lambda tensors: tensors.update({"model.norm.weight": torch.zeros(3)}))


def untie(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))


def make_pointer(folder: Path) -> None:
    (folder / "model.safetensors").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    )


def make_pickle(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def add_code(folder: Path) -> None:
    (folder / "own.py").write_text("open('ran', 'w')\nclass Own: pass\n")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "own.Own", "AutoConfig": "own.Own"}
    (folder / "config.json").write_text(json.dumps(config))


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
        (lose_tensors, r"has no value for model\.layers\.1\.\S+, .* and 8 more; restore"),
        (add_tensor, r"has values of no parameter, model\.extra; restore"),
        (reshape_tensor, r"model\.norm\.weight of shape \(3,\) where \(32,\) is expected"),
        (untie, r"has no value for lm_head\.weight"),
        (make_pointer, r"model\.safetensors is a Git LFS pointer"),
        (make_pickle, r"in safetensors' format; it holds pytorch_model\.bin"),
        (add_code, r"config\.json names Python code of its own"),
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
