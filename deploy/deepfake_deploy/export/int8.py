"""int8 for CPUs: the encoder's linear layers multiply 8-bit integers, and everything else is fp32.

Every row of activations and every output channel of the weights has a scale of its own, the largest absolute value
over 127. With one scale for a whole batch, as in torch's own dynamic quantisation, an image's scores would depend on
the others in its batch. torch has deprecated its quantized tensors; these are plain ones.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn


class Int8Linear(nn.Module):
    """One or several linear layers of the same input as one layer; takes and returns fp32."""

    weight: Tensor
    scale: Tensor
    bias: Tensor

    def __init__(self, *layers: nn.Linear) -> None:
        super().__init__()
        weight = torch.cat([layer.weight.detach() for layer in layers])
        scale = _scale(weight)
        self.register_buffer("weight", (weight / scale).round().to(torch.int8).t().contiguous())
        self.register_buffer("scale", scale.flatten())
        self.register_buffer("bias", torch.cat([layer.bias.detach() for layer in layers]))

    def forward(self, hidden: Tensor) -> Tensor:
        """Overwrites `hidden`, which nobody reads any more; memory is what bounds all but the products."""
        rows = hidden.flatten(0, -2)
        scale = _scale(rows)
        products = torch._int_mm(rows.div_(scale).round_().to(torch.int8), self.weight)
        scaled = products.to(torch.float32).mul_(self.scale)
        outputs: Tensor = torch.addcmul(self.bias, scaled, scale, out=scaled).unflatten(0, hidden.shape[:-1])
        return outputs


class TanhGelu(nn.Module):
    """`nn.GELU(approximate="tanh")` in half of its time: x·(1 + tanh u)/2 is x·sigmoid(2u)."""

    linear: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("linear", torch.tensor(2 * (2 / math.pi) ** 0.5))
        self.cubic = 0.044715 * float(self.linear)

    def forward(self, hidden: Tensor) -> Tensor:
        return torch.addcmul(self.linear, hidden, hidden, value=self.cubic).mul_(hidden).sigmoid_().mul_(hidden)


class Int8Attention(nn.Module):
    """`SiglipAttention` with the projections of queries, keys and values as one layer."""

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.heads, self.head_size = attention.num_heads, attention.head_dim
        self.inputs = Int8Linear(attention.q_proj, attention.k_proj, attention.v_proj)
        self.output = Int8Linear(attention.out_proj)

    def forward(self, hidden_states: Tensor, **_: object) -> tuple[Tensor, None]:
        heads = self.inputs(hidden_states).unflatten(-1, (3, self.heads, self.head_size))
        query, key, value = heads.permute(2, 0, 3, 1, 4).unbind()
        attended = nn.functional.scaled_dot_product_attention(query, key, value)
        return self.output(attended.transpose(1, 2).flatten(2)), None


def quantise(encoder: Any) -> None:
    """Put int8 layers into the place of a `SiglipEncoder`'s own."""
    for layer in encoder.layers:
        layer.self_attn = Int8Attention(layer.self_attn)
        if encoder.config.hidden_act == "gelu_pytorch_tanh":
            layer.mlp.activation_fn = TanhGelu()
        layer.mlp.fc1, layer.mlp.fc2 = Int8Linear(layer.mlp.fc1), Int8Linear(layer.mlp.fc2)


def checked(pixels: Tensor) -> Tensor:
    """`pixels`, where their device multiplies int8 exactly; scripted, so that a model.pt refuses others by itself.

    Raises:
        RuntimeError: one sentence.
    """
    if pixels.device.type != "cpu":
        raise RuntimeError("int8 weights are for CPUs: for a GPU, export with --precision fp16")
    # Without VNNI, oneDNN adds pairs of products in 16 bits, which overflow. Made of `pixels`, or freezing would
    # compute it once and for all.
    largest = pixels.new_full((64, 64), 127, dtype=torch.int8)
    if not bool((torch._int_mm(largest, largest) == 64 * 127 * 127).all()):
        raise RuntimeError(
            "this CPU multiplies int8 inexactly (it lacks AVX512-VNNI, AVX-VNNI or AMX): export with --precision bf16 or fp32"
        )
    return pixels


def _scale(rows: Tensor) -> Tensor:
    """Of each row; shape (rows, 1)."""
    largest = torch.maximum(rows.amax(dim=-1, keepdim=True), -rows.amin(dim=-1, keepdim=True))
    return largest.clamp_min(torch.finfo(torch.float32).tiny * 127) / 127
