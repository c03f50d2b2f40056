"""A way round the one thing that diffusers 0.42 cannot do with transformers 5."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers import CLIPTextModel


@contextmanager
def flattened_text_model(pipe: Any) -> Iterator[None]:
    """Let `text_encoder.text_model` mean the encoder itself while a pipeline runs.

    For clip_skip, SD's pipelines ask for `text_encoder.text_model.final_layer_norm`; transformers 5 dropped
    that level. It is there only meanwhile, since diffusers tells the two layouts of LoRA keys apart by it.
    """
    encoder = pipe.text_encoder
    if not isinstance(encoder, CLIPTextModel):
        yield
        return
    # Past nn.Module's own __setattr__, which would make the encoder its own child.
    object.__setattr__(encoder, "text_model", encoder)
    try:
        yield
    finally:
        object.__delattr__(encoder, "text_model")
