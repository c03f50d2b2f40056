"""The diffusers pipelines of a checkpoint, loaded once a process and always given back as they were."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    DiffusionPipeline,
    StableDiffusionControlNetImg2ImgPipeline,
    StableDiffusionControlNetPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLControlNetImg2ImgPipeline,
    StableDiffusionXLControlNetPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLPipeline,
)

from tests.reference.prompts import load_embeddings
from tests.reference.request import ReferenceEmbedding, ReferenceLora

# By the checkpoint's pipeline: with an init image, with ControlNets, and with both.
IMAGE_TO_IMAGE: dict[type[Any], type[Any]] = {
    StableDiffusionPipeline: StableDiffusionImg2ImgPipeline,
    StableDiffusionXLPipeline: StableDiffusionXLImg2ImgPipeline,
}
CONTROLLED: dict[type[Any], type[Any]] = {
    StableDiffusionPipeline: StableDiffusionControlNetPipeline,
    StableDiffusionXLPipeline: StableDiffusionXLControlNetPipeline,
}
CONTROLLED_IMAGE_TO_IMAGE: dict[type[Any], type[Any]] = {
    StableDiffusionPipeline: StableDiffusionControlNetImg2ImgPipeline,
    StableDiffusionXLPipeline: StableDiffusionXLControlNetImg2ImgPipeline,
}
NETWORKS = ("unet", "vae", "text_encoder", "text_encoder_2")
CHANGED_BY_EMBEDDINGS = ("tokenizer", "tokenizer_2", "text_encoder", "text_encoder_2")


@contextmanager
def pipeline(
    model: Path,
    loras: tuple[ReferenceLora, ...],
    *,
    image_to_image: bool,
    unet: torch.nn.Module | None = None,
    controlnets: Sequence[torch.nn.Module] = (),
    embeddings: tuple[ReferenceEmbedding, ...] = (),
) -> Iterator[Any]:
    """The checkpoint's pipeline with `loras`, `embeddings` and `controlnets`, and with `unet` in place of its own.

    On the way out the LoRAs are removed, and the weights are compared with those that were loaded. Embeddings are
    loaded into copies.
    """
    loaded = _load(model.resolve())
    others = {"unet": unet} if unet is not None else {}
    if embeddings:
        components = loaded.base.components
        others |= {name: copy.deepcopy(components[name]) for name in CHANGED_BY_EMBEDDINGS if name in components}
    pipe = loaded.pipeline(image_to_image, others, controlnets)
    load_embeddings(pipe, embeddings)
    names = [f"lora_{index}" for index in range(len(loras))]
    digest = _digest(pipe) if others else loaded.digest
    try:
        for name, lora in zip(names, loras, strict=True):
            pipe.load_lora_weights(lora.path.parent, weight_name=lora.path.name, adapter_name=name)
        if loras:
            # Not fused: what is fused is undone by subtraction, which leaves rounding behind.
            pipe.set_adapters(names, [lora.scale for lora in loras])
        yield pipe
    finally:
        if loras:
            pipe.unload_lora_weights()
            if _digest(pipe) != digest:
                raise AssertionError(f"a LoRA was left in the weights of {model}")


@dataclass(frozen=True)
class _Loaded:
    """A checkpoint in memory, and the digest of its weights."""

    base: Any
    digest: str

    def pipeline(self, image_to_image: bool, others: dict[str, Any], controlnets: Sequence[torch.nn.Module]) -> Any:
        """A new pipeline around the same networks, or `others`, so that a caller may replace its scheduler."""
        kind = type(self.base)
        components = self.base.components | others
        if controlnets:
            components["controlnet"] = list(controlnets)
            kind = (CONTROLLED_IMAGE_TO_IMAGE if image_to_image else CONTROLLED)[kind]
        elif image_to_image:
            kind = IMAGE_TO_IMAGE[kind]
        pipe = kind(**components, **_flags(self.base))
        pipe.set_progress_bar_config(disable=True)
        return pipe


@cache
def _load(model: Path) -> _Loaded:
    base = DiffusionPipeline.from_pretrained(model, dtype=torch.float32, local_files_only=True)
    return _Loaded(base, _digest(base))


def _flags(pipe: Any) -> dict[str, bool]:
    known = ("requires_safety_checker", "force_zeros_for_empty_prompt")
    return {name: pipe.config[name] for name in known if name in pipe.config}


def _digest(pipe: Any) -> str:
    digest = sha256()
    for network in NETWORKS:
        module = pipe.components.get(network)
        for name, tensor in module.state_dict().items() if module is not None else ():
            digest.update(f"{network}.{name}".encode())
            digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
