"""InstantID (arXiv 2401.07519) in diffusers' ControlNet pipelines, which lack it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch

from tests.reference.request import ReferenceRequest


@contextmanager
def image_tokens(pipe: Any, request: ReferenceRequest, image_prompts: Mapping[str, Any]) -> Iterator[None]:
    """Inside this context, a ControlNet that names an IP-Adapter takes the adapter's tokens in place of the text.

    As in the authors' pipeline, the negative prompt's rows get those of the negative image prompt.
    """
    with ExitStack() as hooks:
        for index, controlnet in enumerate(request.controlnets):
            if controlnet.ip_adapter is None:
                continue
            embeds = image_prompts["ip_adapter_image_embeds"]
            tokens = pipe.unet.encoder_hid_proj(embeds)[controlnet.ip_adapter].flatten(
                1, 2
            )  # [branches, tokens, width]
            handle = pipe.controlnet.nets[index].register_forward_pre_hook(partial(_replaced, tokens), with_kwargs=True)
            hooks.callback(handle.remove)
        yield


def _replaced(tokens: torch.Tensor, _network: Any, inputs: Any, named: dict[str, Any]) -> Any:
    rows = len(named["sample"] if "sample" in named else inputs[0])
    text = named["encoder_hidden_states"]
    # In guess mode, the network gets the prompt's rows alone.
    branches = tokens if named.get("guess_mode") is not True else tokens[-1:]
    repeated = branches.repeat_interleave(rows // len(branches), dim=0)
    assert text.shape[::2] == repeated.shape[::2]
    return inputs, {**named, "encoder_hidden_states": repeated}
