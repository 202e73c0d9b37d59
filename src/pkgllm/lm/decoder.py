"""A lean forward pass for the decoders we rank with, over the parameters that transformers loaded.

The same function as the model's own, in fewer and larger steps, with attention left to the caller:
a catalogue is not one sequence, and its parts attend to what no mask over a sequence says cheaply.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from pkgllm.errors import ModelError
from pkgllm.lm.lanes.projection import Projection
from pkgllm.lm.lanes.rms_norm import RmsNorm
from pkgllm.lm.lanes.rotary import Rotation

KNOWN_MODELS = ("llama", "qwen2", "qwen3")
"""Model types whose layers are laid out as :class:`Decoder` expects."""


class Attention(Protocol):
    """Where the rows of a pass look."""

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Return what each row sees in one layer.

        Args:
            layer: From 0.
            query: Shape ``(rows, heads, head_dim)``, rotated and scaled: its products with keys are
                the scores.
            key: Shape ``(rows, key_value_heads, head_dim)``, rotated.
            value: As ``key``.

        Returns:
            Shape ``(rows, heads, head_dim)``.
        """
        ...


@dataclass(frozen=True, slots=True)
class _Layer:
    before_attention: RmsNorm
    heads: Projection
    """To queries, keys and values, side by side."""
    head_norm: RmsNorm | None
    """Of queries and keys, head by head; its weight has shape ``(heads, head_dim)``."""
    output: Projection
    before_mlp: RmsNorm
    gate: Projection
    up: Projection
    down: Projection


class Decoder:
    """The forward pass of a causal language model in evaluation mode, without dropout.

    Hidden states equal those of the model's own forward pass up to rounding. Most
    parameters are shared with the model; those to queries, keys and values are copied, and so are
    float32 layers with an adapter. A decoder made before these changed still has the old ones.

    Args:
        model: Of one of :data:`KNOWN_MODELS`, or one of them with a LoRA adapter by PEFT.
        with_adapter: Whether the adapter counts.

    Raises:
        ModelError: If the model is of another type, or a layer lacks full attention.
    """

    def __init__(self, model: PreTrainedModel | PeftModel, *, with_adapter: bool = True) -> None:
        causal: Any = model.get_base_model() if isinstance(model, PeftModel) else model
        config = causal.config
        check_layout(config, "to rank a catalogue", remedy="choose another base model")
        body = causal.model
        self.device: torch.device = causal.device
        self.dtype: torch.dtype = body.embed_tokens.weight.dtype
        self.num_layers = int(config.num_hidden_layers)
        self.num_heads = int(config.num_attention_heads)
        self.num_key_value_heads = int(config.num_key_value_heads)
        self.head_dim = int(body.layers[0].self_attn.head_dim)
        self.scaling = float(body.layers[0].self_attn.scaling)
        self.hidden_size = int(config.hidden_size)
        self.intermediate_size = int(config.intermediate_size)
        self.vocab_size = int(config.vocab_size)
        self._embedding: Tensor = body.embed_tokens.weight
        self._rotary: nn.Module = body.rotary_emb
        self._norm = RmsNorm.of(body.norm)
        self._head = Projection.of(causal.lm_head, with_adapter=with_adapter)
        self._layers = [_layer(layer, with_adapter) for layer in body.layers]

    def hidden(self, input_ids: Tensor, positions: Tensor, attention: Attention) -> Tensor:
        """Return the last hidden states of some tokens.

        Args:
            input_ids: Shape ``(rows,)``, int64.
            positions: Of each token in its sequence, from 0. Shape ``(rows,)``, int64.
            attention: Is asked in every layer, in order.

        Returns:
            Shape ``(rows, hidden)``.
        """
        rows = F.embedding(input_ids, self._embedding)
        rotation = self._rotation(rows, positions)
        num_turned = self.num_heads + self.num_key_value_heads
        for index, layer in enumerate(self._layers):
            heads = layer.heads(layer.before_attention(rows)).view(len(rows), -1, self.head_dim)
            turned, value = heads[:, :num_turned], heads[:, num_turned:]
            if layer.head_norm is not None:
                turned = layer.head_norm(turned)
            turned = rotation(turned)
            query, key = turned[:, : self.num_heads], turned[:, self.num_heads :]
            seen = attention(index, query, key, value)
            rows = layer.output.plus(seen.reshape(len(rows), -1), rows)
            normed = layer.before_mlp(rows)
            rows = layer.down.plus(layer.up.times(normed, layer.gate(normed, "swish")), rows)
        return self._norm(rows)

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
        found = []
        for start in range(0, len(hidden), rows_at_once):
            stop = min(start + rows_at_once, len(hidden))
            part = slice(offsets[start], offsets[stop])
            logits = self._head(hidden[start:stop]).float()
            found.append(logits.log_softmax(dim=-1)[rows[part] - start, tokens[part]])
        return torch.cat(found) if found else hidden.new_empty(0, dtype=torch.float32)

    def _rotation(self, rows: Tensor, positions: Tensor) -> Rotation:
        """Return the rotation of queries, which are scaled, and keys, side by side."""
        scale = rows.new_ones(self.num_heads + self.num_key_value_heads, 1)
        scale[: self.num_heads] = self.scaling
        return Rotation.at(positions, self._rotary, rows).scaled(scale)


def check_layout(config: Any, purpose: str, *, remedy: str) -> None:
    """Fail where a model's layers are not laid out as expected.

    Args:
        config: The model's configuration.
        purpose: What the layout is needed for, as the error message says it.
        remedy: What to do about another one.

    Raises:
        ModelError: If the model is none of :data:`KNOWN_MODELS`, or a layer lacks full attention.
    """
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


def _layer(module: Any, with_adapter: bool) -> _Layer:
    def projection(layer: nn.Module) -> Projection:
        return Projection.of(layer, with_adapter=with_adapter)

    attention, mlp = module.self_attn, module.mlp
    parts = [projection(layer) for layer in (attention.q_proj, attention.k_proj, attention.v_proj)]
    return _Layer(
        before_attention=RmsNorm.of(module.input_layernorm),
        heads=Projection.joined(parts),
        head_norm=_head_norm(attention) if hasattr(attention, "q_norm") else None,
        output=projection(attention.o_proj),
        before_mlp=RmsNorm.of(module.post_attention_layernorm),
        gate=projection(mlp.gate_proj),
        up=projection(mlp.up_proj),
        down=projection(mlp.down_proj),
    )


def _head_norm(attention: Any) -> RmsNorm:
    size = attention.head_dim
    weights = [
        norm.weight.expand(projection.out_features // size, size)
        for norm, projection in (
            (attention.q_norm, attention.q_proj),
            (attention.k_norm, attention.k_proj),
        )
    ]
    return RmsNorm(torch.cat(weights), float(attention.q_norm.variance_epsilon))
