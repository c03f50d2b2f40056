"""The names that tools give to the layers of a tiny checkpoint, and LoRA files under them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from tests.tiny.loras import SD15_PARTS, SDXL_PARTS
from tests.tiny.original import load, original_unet


@dataclass(frozen=True)
class LayerName:
    """A layer of a component: its name in diffusers or transformers, and that in Stability AI's code for the UNet."""

    component: str
    module: str
    original: str


@cache
def kohya_names(checkpoint: Path) -> dict[str, LayerName]:
    """The stem of Kohya's keys -> the layer, for each layer of the networks that a LoRA changes."""
    names = {}
    for part in SDXL_PARTS if checkpoint.name == "sdxl" else SD15_PARTS:
        for module, original in _modules(checkpoint, part.component).items():
            names[f"{part.kohya}_{module.replace('.', '_')}"] = LayerName(part.component, module, original)
    return names


def write_renamed(
    path: Path, checkpoint: Path, rename: Callable[[LayerName], str | None], more: dict[str, torch.Tensor] | None = None
) -> dict[str, str]:
    """Write Kohya's tiny LoRA of the checkpoint with its stems renamed, and `more` tensors; new key -> Kohya's key.

    Layers that `rename` returns None for are left out.
    """
    stems = {stem: rename(layer) for stem, layer in kohya_names(checkpoint).items()}
    tensors, former = dict(more or {}), {}
    with safe_open(checkpoint.parent / f"loras/{checkpoint.name}/kohya.safetensors", "pt") as file:
        for key in sorted(file.keys()):
            stem, _, end = key.partition(".")
            if (renamed := stems[stem]) is not None:
                new = f"{renamed}.{end}"
                tensors[new], former[new] = file.get_tensor(key), key
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)
    return former


def _modules(checkpoint: Path, component: str) -> dict[str, str]:
    """Module -> its original name; for a text encoder the same."""
    parameters = load(checkpoint, component)
    if component == "unet":
        numbered = {name: torch.tensor(number) for number, name in enumerate(parameters)}
        originals = {int(number): name for name, number in original_unet(numbered).items()}
        return {name.rpartition(".")[0]: originals[number].rpartition(".")[0] for number, name in enumerate(parameters)}
    modules = (name.rpartition(".")[0] for name in parameters)
    named = (module if module.startswith("text_") else f"text_model.{module}" for module in modules)
    return {module: module for module in named}
