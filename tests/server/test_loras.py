"""A LoRA gives the same pixels under every naming; keys that nothing uses are a warning."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from lycoris import LycorisNetwork, create_lycoris
from PIL import Image
from safetensors.torch import load_file, save_file

from lorikeet import Client, InvalidRequest
from lorikeet.client.result import Result
from tests.tiny.lora_names import LayerName, kohya_names, write_renamed

PICTURE = Image.linear_gradient("L").resize((64, 64)).convert("RGB")
TOOLS = {
    "OneTrainer": ("unet.", "clip_l.", "clip_g."),
    "ComfyUI": ("diffusion_model.", "text_encoders.clip_l.transformer.", "text_encoders.clip_g.transformer."),
}
IN_TURN = {
    "unet": ("unet.", "unet.unet.", "base_model.model.", "model.diffusion_model.", "lycoris_", "lora_unet_", ""),
    "text_encoder": ("text_encoder.", "text_encoders.clip_l.", "te1.", "lora_te_", "lora_clip_l_"),
    "text_encoder_2": ("text_encoder_2.", "text_encoders.clip_g.", "te2.", "lora_te2_", "lora_clip_g_"),
}
NOT_APPLIED = {
    "sd15": "loras[0].path: 3 of {tensors} tensors were not applied: bundled embeddings that do not fit the checkpoint "
    "(2): bundle_emb.my fish.clip_g, bundle_emb.my fish.clip_l; keys that name no layer (1): stranger",
    "sdxl": "loras[0].path: 1 of {tensors} tensors were not applied: keys that name no layer (1): stranger\n"
    "loras[0].path: no prompt that is read has 'my fish': without its token, an embedding has no effect",
}
EMBEDDING = {f"bundle_emb.my fish.{name}": torch.zeros(2, width) for name, width in (("clip_l", 32), ("clip_g", 48))}


def run(client: Client, model: Path, lora: Path) -> Result:
    return client.image_to_image(
        model_name=str(model),
        prompt="a red fish",
        image=PICTURE,
        loras=[{"path": lora}],
        seed=7,
        num_inference_steps=2,
    )


def pixels(result: Result) -> bytes:
    (image,) = result.images
    return image.convert("RGB").tobytes()


def by_tool(tool: str) -> Callable[[LayerName], str]:
    """The names that a tool gives: the UNet's are Stability AI's."""
    prefixes = dict(zip(("unet", "text_encoder", "text_encoder_2"), TOOLS[tool], strict=True))
    return lambda layer: prefixes[layer.component] + layer.original


def in_turn(model: Path) -> Callable[[LayerName], str]:
    """Every layer has another prefix, naming and spelling than the one before it: one request tries them all."""
    numbers = {layer: number for number, layer in enumerate(kohya_names(model).values())}

    def name(layer: LayerName) -> str:
        number, prefixes = numbers[layer], IN_TURN[layer.component]
        module = layer.original if number % 4 < 2 else layer.module
        return prefixes[number % len(prefixes)] + (module if number % 2 else module.replace(".", "_"))

    return name


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
def test_every_naming_gives_the_same_pixels(client: Client, tiny: Path, tmp_path: Path, kind: str) -> None:
    model = tiny / kind
    kohya = run(client, model, tiny / f"loras/{kind}/kohya.safetensors")
    write_renamed(tmp_path / "in_turn.safetensors", model, in_turn(model))
    mixed = run(client, model, tmp_path / "in_turn.safetensors")
    assert pixels(mixed) == pixels(kohya)
    assert kohya.response.warnings == []
    assert mixed.response.warnings == []
    for tool in TOOLS:
        path = tmp_path / f"{tool}.safetensors"
        write_renamed(path, model, by_tool(tool), EMBEDDING | {"stranger": torch.zeros(1)})
        found = run(client, model, path)
        assert pixels(found) == pixels(kohya)
        assert "\n".join(found.response.warnings) == NOT_APPLIED[kind].format(tensors=len(load_file(path)))


def test_the_file_that_the_lycoris_package_saves(
    client: Client, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LycorisNetwork, "TARGET_REPLACE_MODULE", ["Attention", "FeedForward"])
    unet = UNet2DConditionModel.from_pretrained(tiny / "sd15/unet")
    generator = torch.Generator().manual_seed(3)
    network = create_lycoris(unet, 1.0, linear_dim=4, linear_alpha=2, algo="lokr", factor=4)
    network.apply_to()
    for parameter in network.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    saved, renamed = tmp_path / "saved.safetensors", tmp_path / "renamed.safetensors"
    network.save_weights(str(saved), torch.float32, {})
    tensors = load_file(saved)
    assert all(key.startswith("lycoris_") for key in tensors)
    save_file({key.replace("lycoris_", "lora_unet_", 1): tensor for key, tensor in tensors.items()}, renamed)
    assert pixels(run(client, tiny / "sd15", saved)) == pixels(run(client, tiny / "sd15", renamed))


def test_a_file_without_a_matching_key_names_the_model_that_it_is_for(
    client: Client, tiny: Path, tmp_path: Path
) -> None:
    cases = {
        "made for Flux": {"transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight": torch.zeros(2, 8)},
        "made for two text encoders, as in SDXL": {"clip_g.text_model.encoder.x.lora_A.weight": torch.zeros(2, 8)},
        "Bundled embeddings that do not fit the checkpoint (2 of 2)": EMBEDDING,
        "this file has whole weights": load_file(tiny / "sd15/unet/diffusion_pytorch_model.safetensors"),
    }
    for number, (reason, tensors) in enumerate(cases.items()):
        path = tmp_path / f"{number}.safetensors"
        save_file(tensors, path)
        with pytest.raises(InvalidRequest, match=re.escape(reason)) as caught:
            run(client, tiny / "sd15", path)
        assert str(caught.value).startswith("loras[0].path: ")
