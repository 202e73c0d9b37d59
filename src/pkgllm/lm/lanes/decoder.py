"""A decoder that trains the adapters of many lanes in one pass over its frozen parameters."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor

from pkgllm.errors import ModelError
from pkgllm.lm.allocator import keep_freed_memory
from pkgllm.lm.decoder import FrozenDecoder, causal_of
from pkgllm.lm.lanes.group_attention import GroupAttention
from pkgllm.lm.lanes.layer import LaneLayer, LayerTape, Pass, Selection
from pkgllm.lm.lanes.linear import FrozenLinear, LaneLinear
from pkgllm.lm.lanes.lora_factors import FactorLayout, Slot, StackedFactors
from pkgllm.lm.lanes.padded_attention import Kernel
from pkgllm.lm.lanes.stack import Lanes
from pkgllm.lm.projection import linear
from pkgllm.lm.rms_norm import RmsNorm

_JOINT = (
    ("self_attn", ("q_proj", "k_proj", "v_proj")),
    ("self_attn", ("o_proj",)),
    ("mlp", ("gate_proj", "up_proj")),
    ("mlp", ("down_proj",)),
)
"""The linear layers of a decoder layer; those in one tuple map the same rows."""


@dataclass(frozen=True, slots=True)
class LaneBatch:
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

    batch: LaneBatch
    shared: Pass
    layers: list[LayerTape | Tensor]
    """Of each layer; only its input where activations are computed again."""
    last: Tensor
    """Before the last normalisation. Shape ``(sources, hidden)``."""
    inverse: Tensor
    expected: Tensor
    """The head's weights averaged by what each source predicts. As ``last``."""


class LaneDecoder(FrozenDecoder):
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
        super().__init__(
            policy, purpose="to train in lanes", remedy="set training.engine to sequential"
        )
        self.scale, lora_rank = _scale_and_rank(policy)
        adapted = _adapted(policy, self.num_layers)
        self.layout = FactorLayout(
            [(name, layer.in_features, layer.out_features) for name, layer in adapted.items()],
            lora_rank=lora_rank,
        )
        self.trains_lora_a = any(
            parameter.requires_grad
            for name, parameter in policy.named_parameters()
            if "lora_A" in name
        )
        """Whether ``A`` is trained, or only ``B``."""
        self.rows_of_logits = rows_of_logits
        self.kernel: Kernel = kernel
        causal = causal_of(policy)
        self._head: Tensor = causal.lm_head.weight
        slots = {id(layer): self.layout.slots[name] for name, layer in adapted.items()}
        self._layers = [_layer(module, slots) for module in causal.model.layers]
        if self.device.type == "cpu":
            keep_freed_memory()

    @torch.no_grad()
    def forward(
        self,
        batch: LaneBatch,
        attention: GroupAttention,
        factors: StackedFactors | None,
        *,
        checkpoint: bool = False,
    ) -> tuple[Tensor, Tape | None]:
        """Return the log-probability of each predicted token.

        Args:
            batch: What is read and predicted.
            attention: Which rows attend to which.
            factors: Of each lane; None for the base model alone, which leaves no tape.
            checkpoint: Whether to keep only each layer's input, and to compute the rest again.

        Returns:
            Nats, float32, shape ``(targets,)``, and what :meth:`backward` needs.
        """
        x = F.embedding(batch.input_ids, self.embedding)  # (rows, hidden)
        k_rotation = self.rotation(batch.positions, x)
        shared = Pass(
            batch.lanes,
            factors,
            attention,
            k_rotation.scaled(self.scaling),
            k_rotation,
            self.trains_lora_a,
        )
        tapes: list[LayerTape | Tensor] = []
        for index, layer in enumerate(self._layers):
            output, tape = layer.forward(x, shared, self._selection(index, batch))
            if factors is not None:
                tapes.append(x if checkpoint else tape)
            del tape
            x = output
        normed, inverse = self.final_norm.forward(x)  # (sources, hidden), (sources, 1)
        log_probs, expected = self._predict(normed, batch, wants_expected=factors is not None)
        if factors is None:
            return log_probs, None
        return log_probs, Tape(batch, shared, tapes, x, inverse, expected)

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
        batch = tape.batch
        gradient = gradient.to(self.dtype)[:, None]
        d_normed = torch.zeros_like(tape.expected)
        d_normed.index_add_(0, batch.target_rows, self._head[batch.target_ids] * gradient)
        total = gradient.new_zeros(len(d_normed), 1).index_add_(0, batch.target_rows, gradient)
        d_normed.addcmul_(total, tape.expected, value=-1)
        d_x: Tensor | None = self.final_norm.backward(d_normed, tape.last, tape.inverse)
        for index in range(self.num_layers - 1, -1, -1):
            selection, layer = self._selection(index, batch), self._layers[index]
            saved = tape.layers.pop()
            if isinstance(saved, Tensor):
                _, saved = layer.forward(saved, tape.shared, selection)
            assert d_x is not None
            d_x = layer.backward(d_x, saved, tape.shared, selection, wants_rows=index > 0)

    def _selection(self, index: int, batch: LaneBatch) -> Selection | None:
        if index < self.num_layers - 1:
            return None
        return Selection(batch.sources, batch.source_lanes)

    def _predict(
        self, hidden: Tensor, batch: LaneBatch, *, wants_expected: bool
    ) -> tuple[Tensor, Tensor]:
        normaliser = hidden.new_empty(len(hidden), dtype=torch.float32)
        target_logits = torch.linalg.vecdot(
            hidden[batch.target_rows].float(), self._head[batch.target_ids].float()
        )
        expected = torch.empty_like(hidden if wants_expected else hidden[:0])
        for start in range(0, len(hidden), self.rows_of_logits):
            part = slice(start, start + self.rows_of_logits)
            logits = linear(hidden[part], self._head).float()  # (part, vocabulary)
            normaliser[part] = logits.logsumexp(-1)
            if wants_expected:
                weights = logits.sub_(normaliser[part, None]).exp_().to(hidden.dtype)
                expected[part] = linear(weights, self._head.t())
        return target_logits - normaliser[batch.target_rows], expected


def _scale_and_rank(policy: PeftModel) -> tuple[float, int]:
    scales = {
        (float(layer.scaling[name]), int(layer.r[name]))
        for layer in policy.modules()
        if isinstance(layer, LoraLayer)
        for name in layer.active_adapters
    }
    if len(scales) != 1:
        raise ModelError(
            "all layers of an adapter must have one scale and one rank to train in lanes, got "
            f"{len(scales)}; use training.engine sequential"
        )
    return scales.pop()


def _adapted(policy: PeftModel, num_layers: int) -> dict[str, Any]:
    """Return the wrapped layers by PEFT's names; those that map the same rows stand together."""
    wrapped: dict[str, Any] = {
        name: layer for name, layer in policy.named_modules() if isinstance(layer, LoraLayer)
    }
    ordered = [
        f"base_model.model.model.layers.{number}.{block}.{name}"
        for number in range(num_layers)
        for block, names in _JOINT
        for name in names
    ]
    return {name: wrapped[name] for name in ordered if name in wrapped}


def _layer(module: Any, slots: dict[int, Slot]) -> LaneLayer:
    def frozen(layer: Any) -> FrozenLinear:
        base: Any = layer.get_base_layer() if isinstance(layer, LoraLayer) else layer
        return FrozenLinear(base.weight, base.bias, slots.get(id(layer)))

    qkv, o, gate_up, down = (
        LaneLinear(tuple(frozen(getattr(getattr(module, block), name)) for name in names))
        for block, names in _JOINT
    )
    attention = module.self_attn
    has_norm = hasattr(attention, "q_norm")
    return LaneLayer(
        attention_norm=RmsNorm.of(module.input_layernorm),
        qkv=qkv,
        q_norm=RmsNorm.of(attention.q_norm) if has_norm else None,
        k_norm=RmsNorm.of(attention.k_norm) if has_norm else None,
        o=o,
        mlp_norm=RmsNorm.of(module.post_attention_layernorm),
        gate_up=gate_up,
        down=down,
        head_dim=int(attention.head_dim),
    )
