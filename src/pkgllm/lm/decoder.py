"""A lean forward pass for the decoders we rank with, over the parameters that transformers loaded.

The same function as the model's own, in fewer and larger steps, with attention left to the caller:
the rows of a catalogue are no single sequence, and a dense mask over all of them would be large.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import PreTrainedModel

from pkgllm.errors import ModelError
from pkgllm.lm.projection import Projection
from pkgllm.lm.rms_norm import RmsNorm
from pkgllm.lm.rotary import Rotation

KNOWN_MODELS = ("llama", "qwen2", "qwen3")
"""Model types whose layers are laid out as :class:`FrozenDecoder` expects."""


ADAPTABLE = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""Layers of every decoder layer that are computed with an adapter."""


def causal_of(model: PreTrainedModel | PeftModel) -> Any:
    """Return the causal language model itself, without PEFT's wrapper."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


class FrozenDecoder:
    """The sizes and frozen parameters of a decoder that transformers loaded.

    Args:
        model: Of one of :data:`KNOWN_MODELS`, or one of them with a LoRA adapter by PEFT.
        purpose: What the layout is needed for, as the error message says it.
        remedy: What to do about a model of another layout.

    Raises:
        ModelError: If the model is of another type, or a layer lacks full attention.
    """

    def __init__(self, model: PreTrainedModel | PeftModel, *, purpose: str, remedy: str) -> None:
        causal = causal_of(model)
        config = causal.config
        check_layout(model, purpose=purpose, remedy=remedy)
        body = causal.model
        self.device: torch.device = causal.device
        self.dtype: torch.dtype = body.embed_tokens.weight.dtype
        self.num_layers = int(config.num_hidden_layers)
        self.num_heads = int(config.num_attention_heads)
        self.num_key_value_heads = int(config.num_key_value_heads)
        self.head_dim = int(body.layers[0].self_attn.head_dim)
        self.scaling = float(body.layers[0].self_attn.scaling)
        """Of the products of queries and keys."""
        self.hidden_size = int(config.hidden_size)
        self.intermediate_size = int(config.intermediate_size)
        self.vocab_size = int(config.vocab_size)
        self.embedding: Tensor = body.embed_tokens.weight
        self.final_norm = RmsNorm.of(body.norm)
        self._rotary: nn.Module = body.rotary_emb

    def rotation(self, positions: Tensor, like: Tensor) -> Rotation:
        """Return the rotary embedding of positions, shape ``(rows,)``, in the type of ``like``."""
        return Rotation.at(positions, self._rotary, like)


class Attention(Protocol):
    """Which rows of a pass attend to which."""

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor, /) -> Tensor:
        """Return the attention output of one layer, shape ``(rows, heads, head_dim)``.

        Args:
            layer: From 0.
            q: Shape ``(rows, heads, head_dim)``, rotated and scaled: its products with keys are
                the scores.
            k: Shape ``(rows, key_value_heads, head_dim)``, rotated.
            v: As ``k``.
        """
        ...


@dataclass(frozen=True, slots=True)
class _Layer:
    attention_norm: RmsNorm
    qkv: Projection
    """To queries, keys and values, side by side."""
    qk_norm: RmsNorm | None
    """Of queries and keys, head by head; its weight has shape ``(heads, head_dim)``."""
    o: Projection
    mlp_norm: RmsNorm
    gate: Projection
    up: Projection
    down: Projection


class Decoder(FrozenDecoder):
    """The forward pass of a causal language model in evaluation mode, without dropout.

    Hidden states equal those of the model's own forward pass up to rounding. Most
    parameters are shared with the model; those to queries, keys and values are copied, and so are
    float32 layers with an adapter. A decoder made before these changed still has the old ones.

    Args:
        model: As of :class:`FrozenDecoder`.
        with_adapter: Whether the adapter counts.

    Raises:
        ModelError: If the model is of another type, or a layer lacks full attention.
    """

    def __init__(self, model: PreTrainedModel | PeftModel, *, with_adapter: bool = True) -> None:
        super().__init__(model, purpose="to rank a catalogue", remedy="choose another base model")
        causal = causal_of(model)
        self._head = Projection.of(causal.lm_head, with_adapter=with_adapter)
        self._layers = [_layer(layer, with_adapter) for layer in causal.model.layers]

    def hidden(self, input_ids: Tensor, positions: Tensor, attention: Attention) -> Tensor:
        """Return the last hidden states of some tokens, shape ``(rows, hidden)``.

        Args:
            input_ids: Shape ``(rows,)``, int64.
            positions: Of each token in its sequence, from 0. Shape ``(rows,)``, int64.
            attention: Is called in every layer, in order.
        """
        x = F.embedding(input_ids, self.embedding)  # (rows, hidden)
        # Queries and keys are rotated side by side; the queries are scaled as well.
        num_rotated = self.num_heads + self.num_key_value_heads
        scale = x.new_ones(num_rotated, 1)
        scale[: self.num_heads] = self.scaling
        rotation = self.rotation(positions, x).scaled(scale)
        for index, layer in enumerate(self._layers):
            qkv = layer.qkv(layer.attention_norm(x)).view(len(x), -1, self.head_dim)
            qk, v = qkv[:, :num_rotated], qkv[:, num_rotated:]
            if layer.qk_norm is not None:
                qk = layer.qk_norm(qk)
            qk = rotation(qk)
            y = attention(index, qk[:, : self.num_heads], qk[:, self.num_heads :], v)
            x = layer.o.plus(y.reshape(len(x), -1), x)
            normed = layer.mlp_norm(x)
            gate = layer.gate(normed, "swish")  # (rows, intermediate)
            x = layer.down.plus(layer.up.times(normed, gate), x)
        return self.final_norm(x)

    def log_probs(
        self,
        hidden: Tensor,
        offsets: Sequence[int],
        rows: Tensor,
        tokens: Tensor,
        *,
        rows_at_once: int,
    ) -> Tensor:
        """Return log-probabilities of tokens after rows.

        Args:
            hidden: Shape ``(rows, hidden)``.
            offsets: Row ``r`` has the tokens ``offsets[r]:offsets[r + 1]``.
            rows: Row of each token, ascending. Shape ``(tokens,)``, int64.
            tokens: Shape ``(tokens,)``, int64.
            rows_at_once: Rows of logits, each as long as the vocabulary, that exist at once.

        Returns:
            Nats, float32, shape ``(tokens,)``.
        """
        parts = []
        for start in range(0, len(hidden), rows_at_once):
            stop = min(start + rows_at_once, len(hidden))
            part = slice(offsets[start], offsets[stop])
            logits = self._head(hidden[start:stop]).float()
            parts.append(logits.log_softmax(dim=-1)[rows[part] - start, tokens[part]])
        return torch.cat(parts) if parts else hidden.new_empty(0, dtype=torch.float32)


def check_layout(
    model: PreTrainedModel | PeftModel,
    *,
    purpose: str = "to rank a catalogue",
    remedy: str = "choose another base model",
) -> None:
    """Fail where a model, or an adapter on it, is not one that :class:`FrozenDecoder` computes.

    Raises:
        ModelError: If the model is of another type, a layer lacks full attention, or a layer has an
            adapter that is none of :data:`ADAPTABLE`.
    """
    config: Any = causal_of(model).config
    if config.model_type not in KNOWN_MODELS:
        raise ModelError(
            f"a base model must be one of {', '.join(KNOWN_MODELS)} {purpose}, got "
            f"{config.model_type}; {remedy}"
        )
    layer_types = set(getattr(config, "layer_types", None) or ["full_attention"])
    if layer_types != {"full_attention"} or config.hidden_act != "silu":
        raise ModelError(
            "a base model must have full attention in every layer and the activation silu "
            f"{purpose}, got {', '.join(sorted(layer_types))} and {config.hidden_act}; {remedy}"
        )
    for name, layer in model.named_modules():
        if isinstance(layer, LoraLayer) and name.rpartition(".")[2] not in ADAPTABLE:
            raise ModelError(
                f"adapter.target_modules must be among {', '.join(ADAPTABLE)} {purpose}, got "
                f"{name}; leave it out"
            )


def _layer(module: Any, with_adapter: bool) -> _Layer:
    def projection(layer: nn.Module) -> Projection:
        return Projection.of(layer, with_adapter=with_adapter)

    attention, mlp = module.self_attn, module.mlp
    parts = [projection(layer) for layer in (attention.q_proj, attention.k_proj, attention.v_proj)]
    return _Layer(
        attention_norm=RmsNorm.of(module.input_layernorm),
        qkv=Projection.joined(parts),
        qk_norm=_qk_norm(attention) if hasattr(attention, "q_norm") else None,
        o=projection(attention.o_proj),
        mlp_norm=RmsNorm.of(module.post_attention_layernorm),
        gate=projection(mlp.gate_proj),
        up=projection(mlp.up_proj),
        down=projection(mlp.down_proj),
    )


def _qk_norm(attention: Any) -> RmsNorm:
    size = attention.head_dim
    weights = [
        norm.weight.expand(projection.out_features // size, size)
        for norm, projection in (
            (attention.q_norm, attention.q_proj),
            (attention.k_norm, attention.k_proj),
        )
    ]
    return RmsNorm(torch.cat(weights), float(attention.q_norm.variance_epsilon))
