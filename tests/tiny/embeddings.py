"""Textual inversions for a tiny checkpoint, in the layouts that published ones have; a LoRA that bundles one."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from tests.tiny.text_encoders import GAINS

BUNDLED = "my fish"  # the name of the bundled embedding


def write_embeddings(folder: Path, widths: tuple[int, ...], seed: int) -> None:
    """Write `one`, `two` and `three`, named after their numbers of vectors; `widths` are the text encoders'."""
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(seed)

    def vectors(count: int) -> list[torch.Tensor]:
        gain = GAINS["token_embedding"]
        return [gain * torch.randn((count, width), generator=generator) * width**-0.5 for width in widths]

    one, two, three = vectors(1), vectors(2), vectors(3)
    if len(widths) == 1:
        save_file({"<thing>": one[0]}, folder / "one.safetensors")  # diffusers
        save_file({"emb_params": two[0].half()}, folder / "two.safetensors")  # kohya
        a1111 = {"string_to_token": {"*": 265}, "string_to_param": {"*": three[0]}, "name": "thing", "step": 500}
        torch.save(a1111 | {"sd_checkpoint": "cc6cb27103", "sd_checkpoint_name": None}, folder / "three.pt")
    else:
        save_file({"text_encoders_0": one[0], "text_encoders_1": one[1]}, folder / "one.safetensors")  # diffusers
        save_file({"clip_l": two[0].half(), "clip_g": two[1].half()}, folder / "two.safetensors")  # kohya
        torch.save({"clip_g": three[1], "clip_l": three[0]}, folder / "three.pt")


def write_bundle(path: Path, lora: Path, embedding: Path) -> None:
    """Write the LoRA and the embedding into one file, as OneTrainer does."""
    keys = {"emb_params": "string_to_param.*"}
    vectors = {f"bundle_emb.{BUNDLED}.{keys.get(key, key)}": tensor for key, tensor in load_file(embedding).items()}
    save_file(load_file(lora) | vectors, path)
