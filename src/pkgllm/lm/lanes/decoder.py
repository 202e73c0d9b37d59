"""A decoder that trains the adapters of many lanes in one pass over its frozen parameters."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from pkgllm.errors import ModelError
from pkgllm.lm.decoder import check_layout
from pkgllm.lm.lanes.allocator import keep_freed_memory
from pkgllm.lm.lanes.group_attention import GroupAttention
from pkgllm.lm.lanes.layer import Kept, LaneLayer, LayerTape, Pass
from pkgllm.lm.lanes.linear import FrozenLinear, LaneLinear
from pkgllm.lm.lanes.lora_factors import FactorLayout, Slot, StackedFactors
from pkgllm.lm.lanes.padded_attention import Kernel
from pkgllm.lm.lanes.projection import linear
from pkgllm.lm.lanes.rms_norm import RmsNorm
from pkgllm.lm.lanes.rotary import Rotation
from pkgllm.lm.lanes.stack import Lanes

_JOINT = (
    ("self_attn", ("q_proj", "k_proj", "v_proj")),
    ("self_attn", ("o_proj",)),
    ("mlp", ("gate_proj", "up_proj")),
    ("mlp", ("down_proj",)),
)
"""The linear layers of a decoder layer; those in one tuple map the same rows."""


@dataclass(frozen=True, slots=True)
class Rows:
    """The tokens of a pass, and what is predicted after them. All on one device."""

    input_ids: Tensor
    """Shape ``(rows,)``, int64."""
    positions: Tensor
    """Of each token in its own sequence, from 0. Shape ``(rows,)``, int64."""
    lanes: Lanes
    """Whose rows they are."""
    sources: Tensor
    """Rows that predict something, lane by lane. Shape ``(sources,)``, int64."""
    source_lanes: Lanes
    target_rows: Tensor
    """The index into ``sources`` of each predicted token. Shape ``(targets,)``, int64."""
    target_ids: Tensor
    """The predicted tokens. Shape ``(targets,)``, int64."""


@dataclass(frozen=True, slots=True)
class Tape:
    """What the backward pass needs of a forward pass."""

    rows: Rows
    shared: Pass
    layers: list[LayerTape | Tensor]
    """Of each layer; only its input where activations are computed again."""
    last: Tensor
    """Before the last normalisation. Shape ``(sources, hidden)``."""
    inverse: Tensor
    expected: Tensor
    """The head's weights averaged by what each source predicts. As ``last``."""


class LaneDecoder:
    """Forward and backward passes over the parameters that transformers loaded.

    The same function as ``policy`` has with each lane's adapter, and its gradient, up to rounding.
    The parameters are shared with the policy; its own adapter only says which layers have one.

    Args:
        policy: A model of :data:`~pkgllm.lm.decoder.KNOWN_MODELS` with a LoRA adapter by PEFT.
        rows_of_logits: Rows as long as the vocabulary that exist at once.
        kernel: What computes attention on a GPU.

    Raises:
        ModelError: If the model is of another type, or a layer has an adapter that is not known.
    """

    def __init__(
        self, policy: PeftModel, *, rows_of_logits: int = 256, kernel: Kernel = "sdpa"
    ) -> None:
        causal: Any = policy.get_base_model()
        config = causal.config
        check_layout(config, "to train in lanes", remedy="set training.engine to sequential")
        body = causal.model
        self.device: torch.device = causal.device
        self.dtype: torch.dtype = body.embed_tokens.weight.dtype
        self.num_heads = int(config.num_attention_heads)
        self.num_key_value_heads = int(config.num_key_value_heads)
        self.num_layers = int(config.num_hidden_layers)
        self.hidden_size = int(config.hidden_size)
        self.intermediate_size = int(config.intermediate_size)
        self.vocab_size = int(config.vocab_size)
        self.head_dim = int(body.layers[0].self_attn.head_dim)
        self.scale, lora_rank = _scale_and_rank(policy)
        adapted = _adapted(policy)
        self.layout = FactorLayout(
            [(name, layer.in_features, layer.out_features) for name, layer in adapted.items()],
            lora_rank=lora_rank,
        )
        self.trains_first = any(
            parameter.requires_grad
            for name, parameter in policy.named_parameters()
            if "lora_A" in name
        )
        """Whether ``A`` is trained, or only ``B``."""
        self._scaling = float(body.layers[0].self_attn.scaling)
        self._embedding: Tensor = body.embed_tokens.weight
        self._rotary: nn.Module = body.rotary_emb
        self._norm = RmsNorm.of(body.norm)
        self._head: Tensor = causal.lm_head.weight
        self.rows_of_logits = rows_of_logits
        self.kernel: Kernel = kernel
        slots = {id(layer): self.layout.slots[name] for name, layer in adapted.items()}
        self._layers = [_layer(module, slots) for module in body.layers]
        if self.device.type == "cpu":
            keep_freed_memory()

    @torch.no_grad()
    def forward(
        self,
        rows: Rows,
        attention: GroupAttention,
        factors: StackedFactors | None,
        *,
        checkpoint: bool = False,
    ) -> tuple[Tensor, Tape | None]:
        """Return the log-probability of each predicted token.

        Args:
            rows: What is read and predicted.
            attention: How the rows look at each other.
            factors: Of each lane; None for the base model alone, which leaves no tape.
            checkpoint: Whether to keep only each layer's input, and to compute the rest again.

        Returns:
            Nats, float32, shape ``(targets,)``, and what :meth:`backward` needs.
        """
        hidden = F.embedding(rows.input_ids, self._embedding)
        key_rotation = Rotation.at(rows.positions, self._rotary, hidden)
        shared = Pass(
            rows.lanes,
            factors,
            attention,
            key_rotation.scaled(self._scaling),
            key_rotation,
            self.trains_first,
        )
        tapes: list[LayerTape | Tensor] = []
        for index, layer in enumerate(self._layers):
            found, tape = layer.forward(hidden, shared, self._kept(index, rows))
            if factors is not None:
                tapes.append(hidden if checkpoint else tape)
            del tape
            hidden = found
        normed, inverse = self._norm.forward(hidden)
        log_probs, expected = self._predict(normed, rows, wants_expected=factors is not None)
        if factors is None:
            return log_probs, None
        return log_probs, Tape(rows, shared, tapes, hidden, inverse, expected)

    @torch.no_grad()
    def backward(self, gradient: Tensor, tape: Tape) -> None:
        r"""Write the gradients of all lanes' factors; the tape is used up.

        With :math:`g_t` the gradient of the log-probability of target :math:`t` at a source,

        .. math:: \partial h = \sum_t g_t W_t - (\sum_t g_t) \sum_v p_v W_v

        so neither the logits nor their probabilities are kept.

        Args:
            gradient: Of each log-probability. Shape ``(targets,)``.
            tape: As :meth:`forward` returned it.
        """
        rows = tape.rows
        gradient = gradient.to(self.dtype)[:, None]
        normed = torch.zeros_like(tape.expected)
        normed.index_add_(0, rows.target_rows, self._head[rows.target_ids] * gradient)
        total = gradient.new_zeros(len(normed), 1).index_add_(0, rows.target_rows, gradient)
        normed.addcmul_(total, tape.expected, value=-1)
        hidden: Tensor | None = self._norm.backward(normed, tape.last, tape.inverse)
        for index in range(self.num_layers - 1, -1, -1):
            kept, layer = self._kept(index, rows), self._layers[index]
            saved = tape.layers.pop()
            if isinstance(saved, Tensor):
                _, saved = layer.forward(saved, tape.shared, kept)
            assert hidden is not None
            hidden = layer.backward(hidden, saved, tape.shared, kept, wants_rows=index > 0)

    def _kept(self, index: int, rows: Rows) -> Kept | None:
        if index < self.num_layers - 1:
            return None
        return Kept(rows.sources, rows.source_lanes)

    def _predict(
        self, hidden: Tensor, rows: Rows, *, wants_expected: bool
    ) -> tuple[Tensor, Tensor]:
        normaliser = hidden.new_empty(len(hidden), dtype=torch.float32)
        chosen = torch.linalg.vecdot(
            hidden[rows.target_rows].float(), self._head[rows.target_ids].float()
        )
        expected = torch.empty_like(hidden if wants_expected else hidden[:0])
        for start in range(0, len(hidden), self.rows_of_logits):
            part = slice(start, start + self.rows_of_logits)
            logits = linear(hidden[part], self._head).float()
            normaliser[part] = logits.logsumexp(-1)
            if wants_expected:
                weights = logits.sub_(normaliser[part, None]).exp_().to(hidden.dtype)
                expected[part] = linear(weights, self._head.t())
        return chosen - normaliser[rows.target_rows], expected


def _scale_and_rank(policy: PeftModel) -> tuple[float, int]:
    found = {
        (float(layer.scaling[name]), int(layer.r[name]))
        for layer in policy.modules()
        if isinstance(layer, LoraLayer)
        for name in layer.active_adapters
    }
    if len(found) != 1:
        raise ModelError(
            "all layers of an adapter must have one scale and one rank to train in lanes, got "
            f"{len(found)}; use training.engine sequential"
        )
    return found.pop()


def _adapted(policy: PeftModel) -> dict[str, Any]:
    """Return the wrapped layers by PEFT's names; those that map the same rows stand together."""
    wrapped: dict[str, Any] = {
        name: layer for name, layer in policy.named_modules() if isinstance(layer, LoraLayer)
    }
    causal: Any = policy.get_base_model()
    ordered = [
        f"base_model.model.model.layers.{number}.{block}.{name}"
        for number in range(len(causal.model.layers))
        for block, names in _JOINT
        for name in names
    ]
    if foreign := sorted(wrapped.keys() - set(ordered)):
        known = ", ".join(name for _, names in _JOINT for name in names)
        raise ModelError(
            f"adapter.target_modules must be among {known} to train in lanes, got {foreign[0]}; "
            "leave it out, or set training.engine to sequential"
        )
    return {name: wrapped[name] for name in ordered if name in wrapped}


def _layer(module: Any, slots: dict[int, Slot]) -> LaneLayer:
    def frozen(layer: Any) -> FrozenLinear:
        base: Any = layer.get_base_layer() if isinstance(layer, LoraLayer) else layer
        return FrozenLinear(base.weight, base.bias, slots.get(id(layer)))

    heads, output, arms, down = (
        LaneLinear(tuple(frozen(getattr(getattr(module, block), name)) for name in names))
        for block, names in _JOINT
    )
    attention = module.self_attn
    has_norm = hasattr(attention, "q_norm")
    return LaneLayer(
        before_attention=RmsNorm.of(module.input_layernorm),
        heads=heads,
        query_norm=RmsNorm.of(attention.q_norm) if has_norm else None,
        key_norm=RmsNorm.of(attention.k_norm) if has_norm else None,
        output=output,
        before_mlp=RmsNorm.of(module.post_attention_layernorm),
        arms=arms,
        down=down,
        head_dim=int(attention.head_dim),
    )
