"""Attention with IP-Adapter keys and values as inputs.

out = to_out(attn(q, k, v) + sum over adapters of mask * attn(q, ip_k, ip_v, bias)), as in diffusers'
`IPAdapterAttnProcessor2_0`. diffusers keeps weights, scales and masks in the module; here each row brings its own. The
adapter's scale is multiplied into ip_v, so an ip_v of zeros adds nothing.

The adapters are an axis of the tensors, which may be 0. So one exported graph serves any number of adapters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import nn
from torch.nn import functional


@dataclass(frozen=True)
class ImagePrompt:
    """IP-Adapter inputs of a batch of rows.

    k, v: [rows, adapters, tokens, sum of inner widths], packed over all cross-attention layers in module order.
    bias: [rows, adapters, tokens], 0 or -inf; -inf masks a token that the adapter does not have. Each adapter needs at
    least one 0, because a softmax over -inf alone is NaN.
    masks: resolution level -> [rows, adapters, queries], or [rows, adapters, 1] for the whole picture; None: no masks.
    """

    k: torch.Tensor
    v: torch.Tensor
    bias: torch.Tensor
    masks: Mapping[int, torch.Tensor] | None


@dataclass(frozen=True)
class ImagePromptLayout:
    """What a UNet's image prompts need: the sum of the inner widths, and the levels with cross-attention, ascending."""

    width: int
    levels: tuple[int, ...]


class RowAttention(AttnProcessor2_0):
    """diffusers' cross-attention, plus the image prompt.

    `place`: this layer's slice of the last axis of `ImagePrompt.k` and `ImagePrompt.v`. `level`: its resolution level.
    """

    def __init__(self, place: slice, level: int) -> None:
        super().__init__()
        self._place, self._level = place, level

    def __call__(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        *args: Any,
        image_prompt: ImagePrompt | None = None,
        **options: Any,
    ) -> torch.Tensor:
        if image_prompt is None:
            result: torch.Tensor = super().__call__(attn, hidden_states, encoder_hidden_states, *args, **options)
            return result
        # The second attention of a transformer block has no mask, norm, residual connection or output scale.
        query, key, value = (
            _heads(attn, layer(states))
            for layer, states in (
                (attn.to_q, hidden_states),
                (attn.to_k, encoder_hidden_states),
                (attn.to_v, encoder_hidden_states),
            )
        )
        attended = functional.scaled_dot_product_attention(query, key, value)
        attended = attended + self._attend(attn, query, image_prompt)
        result = attended.transpose(1, 2).flatten(2)
        for layer in attn.to_out:
            result = layer(result)
        return result

    def _attend(self, attn: Attention, query: torch.Tensor, prompt: ImagePrompt) -> torch.Tensor:
        """sum over adapters: mask * softmax(q ip_k + bias) ip_v. query, result: [rows, heads, queries, width]."""
        key, value = (_heads(attn, packed[..., self._place].to(query)) for packed in (prompt.k, prompt.v))
        bias = prompt.bias[:, :, None, None].to(query)
        # Contiguous, because matmul copies other forms for some numbers of adapters, and then rounds differently.
        query, key, value = (part.contiguous() for part in (query[:, None], key, value))
        found = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        if prompt.masks is not None:
            found = found * prompt.masks[self._level][:, :, None, :, None].to(found)
        return found.sum(dim=1)


class SelfAttention(AttnProcessor2_0):
    """diffusers' self-attention. diffusers passes the image prompt to every processor; self-attention ignores it."""

    def __call__(self, *args: Any, image_prompt: ImagePrompt | None = None, **options: Any) -> torch.Tensor:
        result: torch.Tensor = super().__call__(*args, **options)
        return result


def install_attention(unet: nn.Module) -> ImagePromptLayout:
    """Set the processor of every attention layer of a diffusers UNet. Slices of `place` follow the module order."""
    begin, levels = 0, set()
    count = len(list(unet.get_submodule("down_blocks").children()))
    for name, module in unet.named_modules():
        if not isinstance(module, Attention):
            continue
        if name.endswith("attn2"):
            level = _level(name, count)
            module.set_processor(RowAttention(slice(begin, begin + module.inner_dim), level))
            begin += module.inner_dim
            levels.add(level)
        else:
            module.set_processor(SelfAttention())
    return ImagePromptLayout(begin, tuple(sorted(levels)))


def _level(name: str, count: int) -> int:
    """The resolution level of a module's block, in a UNet of `count` levels."""
    block, number, *_ = name.split(".")
    if block == "mid_block":
        return count - 1
    return int(number) if block == "down_blocks" else count - 1 - int(number)


def _heads(attn: Attention, x: torch.Tensor) -> torch.Tensor:
    """[..., tokens, inner width] -> [..., heads, tokens, width]."""
    return x.reshape(*x.shape[:-1], attn.heads, attn.inner_dim // attn.heads).transpose(-3, -2)
