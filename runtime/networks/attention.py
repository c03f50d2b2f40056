"""Attention with IP-Adapter keys and values as inputs.

out = attn(q, k, v) + sum over adapters of mask * attn(q, ip_k, ip_v, bias), as in diffusers'
`IPAdapterAttnProcessor2_0`. diffusers keeps weights, scales and masks in the module; here each row brings its own. The
adapter's scale is multiplied into ip_v, so an ip_v of zeros adds nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from diffusers.image_processor import IPAdapterMaskProcessor
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import nn
from torch.nn import functional


@dataclass(frozen=True)
class ImagePrompt:
    """IP-Adapter inputs of a batch of rows.

    k, v: [rows, adapters, tokens, sum of inner widths], packed over all cross-attention layers in module order.
    bias: [rows, adapters, tokens], 0 or -inf; -inf masks a token that the adapter does not have. Each adapter needs at
    least one 0, because a softmax over -inf alone is NaN.
    mask: [rows, adapters, h, w] at the latents' size, or None for the whole picture.
    """

    k: torch.Tensor
    v: torch.Tensor
    bias: torch.Tensor
    mask: torch.Tensor | None


class RowAttention(AttnProcessor2_0):
    """diffusers' cross-attention, plus the image prompt.

    `place`: this layer's slice of the last axis of `ImagePrompt.k` and `ImagePrompt.v`.
    """

    def __init__(self, place: slice) -> None:
        super().__init__()
        self._place = place

    def __call__(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        *args: Any,
        image_prompt: ImagePrompt | None = None,
        **options: Any,
    ) -> torch.Tensor:
        result: torch.Tensor = super().__call__(attn, hidden_states, encoder_hidden_states, *args, **options)
        if image_prompt is None:
            return result
        # diffusers adds the image prompt's part before the output projection. The projection is linear, so this adds
        # the projected part after it, without the bias.
        added = _attend(attn, hidden_states, image_prompt, self._place)
        weight = attn.to_out[0].weight.to(added)
        projected: torch.Tensor = functional.linear(added, weight) / attn.rescale_output_factor
        return result + projected


class SelfAttention(AttnProcessor2_0):
    """diffusers' self-attention. diffusers passes the image prompt to every processor; self-attention ignores it."""

    def __call__(self, *args: Any, image_prompt: ImagePrompt | None = None, **options: Any) -> torch.Tensor:
        result: torch.Tensor = super().__call__(*args, **options)
        return result


def install_attention(unet: nn.Module) -> None:
    """Set the processor of every attention layer of a diffusers UNet. Slices of `place` follow the module order."""
    begin = 0
    for name, module in unet.named_modules():
        if not isinstance(module, Attention):
            continue
        if name.endswith("attn2"):
            module.set_processor(RowAttention(slice(begin, begin + module.inner_dim)))
            begin += module.inner_dim
        else:
            module.set_processor(SelfAttention())


def _attend(attn: Attention, hidden: torch.Tensor, prompt: ImagePrompt, place: slice) -> torch.Tensor:
    """sum over adapters: mask * softmax(q ip_k + bias) ip_v, [rows, queries, inner]. hidden: [rows, queries, width]."""
    rows, queries, _ = hidden.shape
    query = _heads(attn.to_q(hidden), attn.heads)
    total = torch.zeros_like(query.transpose(1, 2).reshape(rows, queries, -1))
    for adapter in range(prompt.k.shape[1]):
        key, value = (_heads(part[:, adapter, :, place].to(query), attn.heads) for part in (prompt.k, prompt.v))
        bias = prompt.bias[:, adapter, None, None].to(query)
        found = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        found = found.transpose(1, 2).reshape(rows, queries, -1)
        if prompt.mask is not None:
            found = found * _shrink(prompt.mask[:, adapter], queries, found)
        total = total + found
    return total


def _heads(x: torch.Tensor, heads: int) -> torch.Tensor:
    rows, tokens, inner = x.shape
    return x.reshape(rows, tokens, heads, inner // heads).transpose(1, 2)


def _shrink(mask: torch.Tensor, queries: int, like: torch.Tensor) -> torch.Tensor:
    """The masks [rows, h, w], resized to the layer's resolution: [rows, queries, 1]."""
    small = [IPAdapterMaskProcessor.downsample(row[None], 1, queries, 1) for row in mask]
    return torch.cat(small).to(like)
