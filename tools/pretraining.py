"""Pretrain a small base model: a byte-level BPE tokenizer and a small Qwen3.

Documents are packed whole into rows; a token attends to its own document only. The rows and the
step size of a step depend on its number alone, so a run that continues from a checkpoint ends with
the parameters of an uninterrupted one (on one machine, with one number of threads).
"""

import hashlib
import io
import json
import math
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM
from transformers.utils import logging as transformers_logging

from pkgllm.errors import RunError
from pkgllm.files import cannot, write_atomically, write_folder_atomically
from pkgllm.randomness import stream, torch_seed
from tools.chat_tokenizer import DOCUMENT_END, SPECIAL_TOKENS, train_tokenizer

_CHECKPOINT = "checkpoint.pt"


def _option(default: Any, what: str) -> Any:
    return field(default=default, metadata={"help": what})


@dataclass(frozen=True, kw_only=True)
class Options:
    """Sizes of the model and of the training; every field is an option of the command line.

    Raises:
        ValueError: If a number is out of range.
    """

    vocab_size: int = _option(2048, "tokens, special ones included")
    hidden_size: int = _option(128, "width of the residual stream")
    layers: int = _option(4, "transformer layers")
    heads: int = _option(4, "attention heads of a layer")
    key_value_heads: int = _option(2, "key-value heads of a layer")
    head_size: int = _option(32, "width of an attention head")
    intermediate_size: int = _option(384, "width of the feed-forward layers")
    positions: int = _option(2048, "longest sequence the model declares, tokens")
    context: int = _option(512, "tokens of a training row")
    batch_size: int = _option(8, "rows of a step")
    steps: int = _option(1200, "optimiser steps of the whole run")
    learning_rate: float = _option(3e-3, "highest step size; it falls as a cosine to a tenth")
    warmup_share: float = _option(0.05, "share of the steps in which the step size rises")
    weight_decay: float = _option(0.1, "decoupled weight decay of the matrices")
    held_out_share: float = _option(0.01, "share of the documents kept for the printed loss")
    checkpoint_every: int = _option(100, "steps between two checkpoints")
    seed: int = _option(0, "of the parameters, the held-out slice and the order of the rows")
    dtype: str = _option("bfloat16", "type of the written parameters, float32 or bfloat16")

    def __post_init__(self) -> None:
        smallest = {"vocab_size": 256 + len(SPECIAL_TOKENS), "context": 2, "seed": 0}
        for option in fields(self):
            value = getattr(self, option.name)
            least = smallest.get(option.name, 1)
            if isinstance(value, int) and value < least:
                raise ValueError(f"{option.name} must be at least {least}, got {value}")
            if isinstance(value, float) and not 0 <= value < math.inf:
                raise ValueError(f"{option.name} must be finite and not negative, got {value}")
        if max(self.warmup_share, self.held_out_share) >= 1:
            raise ValueError(
                "warmup_share and held_out_share must be below 1, "
                f"got {self.warmup_share} and {self.held_out_share}"
            )
        if self.heads % self.key_value_heads:
            raise ValueError(
                f"heads must be a multiple of key_value_heads, got {self.heads} and "
                f"{self.key_value_heads}"
            )
        if self.head_size % 2:
            raise ValueError(f"head_size must be even, got {self.head_size}")
        if self.dtype not in ("float32", "bfloat16"):
            raise ValueError(f"dtype must be float32 or bfloat16, got {self.dtype!r}")


@dataclass(frozen=True, slots=True)
class PackedRows:
    """Documents packed into rows of equal length."""

    token_ids: npt.NDArray[np.int64]
    """Shape ``(rows, context)``."""
    documents: npt.NDArray[np.int64]
    """The document of each token, counted from 1 in its row; 0 is padding. Same shape."""


def pack_rows(documents: Iterable[Sequence[int]], *, context: int, padding: int) -> PackedRows:
    """Pack token sequences into rows: longest first, each into the fullest row with enough room.

    A sequence longer than a row is cut into pieces.
    """
    pieces = [
        document[start : start + context]
        for document in documents
        for start in range(0, len(document), context)
    ]
    rows: list[list[Sequence[int]]] = []
    rows_by_room: list[list[int]] = [[] for _ in range(context + 1)]
    for piece in sorted(pieces, key=len, reverse=True):
        room = next((r for r in range(len(piece), context + 1) if rows_by_room[r]), None)
        if room is None:
            rows.append([])
            row, room = len(rows) - 1, context
        else:
            row = rows_by_room[room].pop()
        rows[row].append(piece)
        rows_by_room[room - len(piece)].append(row)
    token_ids = np.full((len(rows), context), padding, dtype=np.int64)
    numbers = np.zeros((len(rows), context), dtype=np.int64)
    for index, row_pieces in enumerate(rows):
        end = 0
        for number, piece in enumerate(row_pieces, 1):
            token_ids[index, end : end + len(piece)] = piece
            numbers[index, end : end + len(piece)] = number
            end += len(piece)
    return PackedRows(token_ids, numbers)


def rows_of_step(step: int, *, num_rows: int, batch_size: int, seed: int) -> npt.NDArray[np.int64]:
    """Return the indices of a step's rows, which depend on the seed and the step alone."""
    positions = np.arange(step * batch_size, (step + 1) * batch_size)
    epochs = positions // num_rows
    order = {e: stream(seed, "rows", int(e)).permutation(num_rows) for e in np.unique(epochs)}
    return np.array([order[e][p % num_rows] for e, p in zip(epochs, positions, strict=True)])


def learning_rate_of_step(step: int, options: Options) -> float:
    """Return the step size: linear warm-up, then a cosine from the highest to a tenth of it."""
    warmup = max(1, round(options.warmup_share * options.steps))
    if step < warmup:
        return options.learning_rate * (step + 1) / warmup
    done = (step - warmup) / max(1, options.steps - warmup)
    return options.learning_rate * (0.1 + 0.9 * (1 + math.cos(math.pi * done)) / 2)


def summed_loss(
    model: Qwen3ForCausalLM, rows: PackedRows, index: slice | Sequence[int] | npt.NDArray[np.int64]
) -> tuple[Tensor, int]:
    """Return the negative log-likelihood in nats, summed, and the number of predicted tokens.

    A token is predicted from the earlier tokens of its document, so a document's first token is
    not predicted.
    """
    token_ids = torch.from_numpy(rows.token_ids[index])
    documents = torch.from_numpy(rows.documents[index])
    context = token_ids.shape[1]
    same = documents[:, None, :, None] == documents[:, None, None, :]
    mask = same & torch.ones(context, context, dtype=torch.bool).tril()
    hidden = model.model(input_ids=token_ids, attention_mask=mask, use_cache=False)[0]
    predicted = (documents[:, 1:] == documents[:, :-1]) & (documents[:, 1:] > 0)
    logits = model.lm_head(hidden[:, :-1][predicted])
    return F.cross_entropy(logits, token_ids[:, 1:][predicted], reduction="sum"), len(logits)


def make_model(options: Options, tokenizer: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    """Return a Qwen3 with random parameters, which depend on the seed alone."""
    torch.manual_seed(torch_seed(options.seed, "parameters"))
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=options.hidden_size,
        intermediate_size=options.intermediate_size,
        num_hidden_layers=options.layers,
        num_attention_heads=options.heads,
        num_key_value_heads=options.key_value_heads,
        head_dim=options.head_size,
        max_position_embeddings=options.positions,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return Qwen3ForCausalLM(config)


def make_optimizer(model: torch.nn.Module, options: Options) -> torch.optim.AdamW:
    """Return AdamW with weight decay of matrices only."""
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() <= 1]
    groups = [
        {"params": matrices, "weight_decay": options.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=options.learning_rate, betas=(0.9, 0.95))


@torch.no_grad()
def held_out_loss(model: Qwen3ForCausalLM, rows: PackedRows, batch_size: int) -> float:
    """Return the mean loss over the held-out slice, nats per token."""
    model.train(False)
    total, count = 0.0, 0
    for start in range(0, len(rows.token_ids), batch_size):
        loss, predicted = summed_loss(model, rows, slice(start, start + batch_size))
        total, count = total + loss.item(), count + predicted
    model.train()
    return total / max(1, count)


def _digest(options: Options, documents: Iterable[str]) -> str:
    """Return a digest of everything on which the finished parameters depend."""
    settings = {
        name: value for name, value in asdict(options).items() if name != "checkpoint_every"
    }
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for document in documents:
        digest.update(hashlib.sha256(document.encode()).digest())
    return digest.hexdigest()


def pack_documents(
    documents: Sequence[str], tokenizer: PreTrainedTokenizerFast, options: Options
) -> tuple[PackedRows, PackedRows]:
    """Return the training rows and the held-out rows."""
    held_out_mask = stream(options.seed, "held_out").random(len(documents)) < options.held_out_share
    # Both parts get at least one document.
    held_out_mask[:2] = False, True
    encoded = tokenizer(
        [document + DOCUMENT_END for document in documents],
        add_special_tokens=False,
        verbose=False,
    )["input_ids"]
    padding = tokenizer.pad_token_id
    assert isinstance(padding, int)
    training, held_out = (
        pack_rows(
            (ids for ids, out in zip(encoded, held_out_mask, strict=True) if out == wanted),
            context=options.context,
            padding=padding,
        )
        for wanted in (False, True)
    )
    return training, held_out


def pretrain(
    documents: Sequence[str],
    output: Path,
    options: Options,
    *,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
    on_held_out: Callable[[int, float], None] = lambda step, loss: None,
) -> None:
    """Train a tokenizer and a model, from the last checkpoint if there is one.

    Args:
        documents: At least two.
        output: Folder of the finished model; until then all files are in ``OUTPUT.partial``.
        options: Sizes of the model and of the training.
        on_step: Called after every step with the number of steps done and the step's loss.
        on_held_out: Called at every checkpoint with the number of steps done and the loss on the
            held-out documents, nats per token.

    Raises:
        RunError: If the output exists or cannot be written, or an unfinished run there had other
            options or documents.
    """
    partial = output.with_name(output.name + ".partial")
    digest = _digest(options, documents)
    checkpoint = _open_partial(output, partial, digest)
    tokenizer = train_tokenizer(
        documents, vocab_size=options.vocab_size, positions=options.positions
    )
    training, held_out = pack_documents(documents, tokenizer, options)
    model = make_model(options, tokenizer)
    optimizer = make_optimizer(model, options)
    if checkpoint:
        model.load_state_dict(checkpoint["model"])
        optimizer.load_state_dict(checkpoint["optimizer"])
    model.train()
    for step in range(checkpoint.get("step", 0), options.steps):
        loss = _take_step(model, optimizer, training, step, options)
        done = step + 1
        if done % options.checkpoint_every == 0 or done == options.steps:
            _write_checkpoint(partial, model, optimizer, done, digest)
            on_held_out(done, held_out_loss(model, held_out, options.batch_size))
        on_step(done, loss)
    _finish(model, tokenizer, output, options)
    shutil.rmtree(partial)


def _open_partial(output: Path, partial: Path, digest: str) -> dict[str, Any]:
    """Return the last checkpoint of an unfinished run, or an empty one; make its folder."""
    if output.exists():
        raise RunError(f"the output must not exist yet, got {output}; remove it first")
    try:
        partial.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot("make", partial, error) from error
    path = partial / _CHECKPOINT
    if not path.is_file():
        return {}
    checkpoint: dict[str, Any] = torch.load(path, weights_only=True)
    if checkpoint["digest"] != digest:
        raise RunError(
            f"{partial} contains an unfinished run with other options or text; give the same "
            "ones to continue it, or remove it to start again"
        )
    return checkpoint


def _take_step(
    model: Qwen3ForCausalLM,
    optimizer: torch.optim.AdamW,
    rows: PackedRows,
    step: int,
    options: Options,
) -> float:
    for group in optimizer.param_groups:
        group["lr"] = learning_rate_of_step(step, options)
    index = rows_of_step(
        step, num_rows=len(rows.token_ids), batch_size=options.batch_size, seed=options.seed
    )
    loss, count = summed_loss(model, rows, index)
    mean = loss / max(1, count)
    optimizer.zero_grad()
    mean.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return mean.item()


def _write_checkpoint(
    partial: Path, model: Qwen3ForCausalLM, optimizer: torch.optim.AdamW, step: int, digest: str
) -> None:
    content = io.BytesIO()
    checkpoint = {
        "step": step,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "digest": digest,
    }
    torch.save(checkpoint, content)
    write_atomically(partial / _CHECKPOINT, content.getvalue())


def _finish(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, output: Path, options: Options
) -> None:
    model.to(getattr(torch, options.dtype))

    def fill(folder: Path) -> None:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        # safetensors creates files of mode 0600.
        for path in folder.iterdir():
            path.chmod(0o644)

    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    write_folder_atomically(output, fill)
