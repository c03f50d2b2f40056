"""A published adapter computes the same in diffusers as the trained module."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import ControlNetModel
from transformers import CLIPImageProcessorPil, CLIPVisionModelWithProjection

from deploy.demo_model.paths import CHECKPOINT
from deploy.demo_model.pipeline.image_encoder import prepare
from deploy.demo_model.pipeline.image_generator import load_image_generator
from deploy.demo_model.pipeline.pictures import to_pixels
from deploy.demo_model.training import lcm_lora
from deploy.demo_model.training import state as training_state
from deploy.demo_model.training.controlnet import ControlledDenoiser, control_pixels, write_controlnet
from deploy.demo_model.training.embedding import tokenizer_of, with_new_tokens, write_embedding
from deploy.demo_model.training.image_encoder import SceneClassifier
from deploy.demo_model.training.ip_adapter import ImagePromptedDenoiser, write_ip_adapter
from deploy.demo_model.training.latents import tokens
from deploy.demo_model.training.trained_networks import trained_denoiser
from deploy.demo_model.world.embedding_specs import EMBEDDING_SPECS
from deploy.demo_model.world.scene import Scene, Thing, draw

CLOSE = 0.01  # relative to the largest value, for float16 weights
KEEPSAKE = EMBEDDING_SPECS["keepsake"]
PICTURES = [draw(Scene("plain", "blue", (Thing(kind, "red"),))) for kind in ("star", "boat")]


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs are saved in a folder of the test."""
    monkeypatch.setattr(training_state, "TRAINING", tmp_path / "runs")
    torch.manual_seed(0)


def _save_run(name: str, module: Any) -> Any:
    """Save a run whose trained weights all differ from their initial values. Returns its averaged module."""
    state = training_state.resume(name, module)
    for now, mean in zip(module.parameters(), state.average.parameters(), strict=True):
        if now.requires_grad:
            mean.data += 0.05 * torch.randn_like(mean)
    state.save()
    return state.average


def _noisy() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(2, 4, 16, 16), torch.tensor([100, 700])


def _difference(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().max() / other.abs().max())


def test_a_published_embedding_computes_the_same(tmp_path: Path) -> None:
    trained = _save_run("embedding-keepsake", with_new_tokens(KEEPSAKE))
    path = tmp_path / "keepsake.safetensors"
    write_embedding(KEEPSAKE, path)

    pipeline = load_image_generator(CHECKPOINT).pipeline()
    pipeline.load_textual_inversion(path)
    with torch.no_grad():
        states, _ = pipeline.encode_prompt(f"a {KEEPSAKE.token} on a meadow", "cpu", 1, False)
        ids = tokenizer_of(KEEPSAKE)(
            f"a {' '.join(KEEPSAKE.tokens)} on a meadow", padding="max_length", max_length=77, return_tensors="pt"
        ).input_ids
        expected = trained.text_encoder(ids).last_hidden_state
        plain = trained.text_encoder(tokens(["a purple boat on a meadow"])).last_hidden_state

    assert _difference(states, expected) < CLOSE
    assert _difference(states, plain) > 10 * CLOSE


def test_only_the_new_vectors_of_an_embedding_learn() -> None:
    denoiser = with_new_tokens(KEEPSAKE)
    denoiser.scale.fill_(1.0)
    known = len(tokenizer_of(KEEPSAKE)) - KEEPSAKE.vectors
    ids = torch.tensor([[3, known, known + 1]])

    torch.autograd.backward(denoiser.loss(torch.randn(1, 4, 16, 16), ids))

    learning = {name for name, parameter in denoiser.named_parameters() if parameter.grad is not None}
    assert learning == {"text_encoder.embeddings.token_embedding.new"}


def test_a_published_controlnet_computes_the_same(tmp_path: Path) -> None:
    trained = _save_run("controlnet", ControlledDenoiser(trained_denoiser())).controlnet
    write_controlnet(tmp_path / "controlnet")

    published = ControlNetModel.from_pretrained(tmp_path / "controlnet", torch_dtype=torch.float32)
    inputs = (*_noisy(), torch.randn(2, 77, 128), to_pixels(PICTURES))
    with torch.no_grad():
        ours, theirs = (network(*inputs, return_dict=False) for network in (trained, published))

    for one, other in zip([*theirs[0], theirs[1]], [*ours[0], ours[1]], strict=True):
        assert _difference(one, other) < CLOSE


def test_an_untrained_controlnet_changes_nothing() -> None:
    denoiser = trained_denoiser()
    controlled = ControlledDenoiser(denoiser)
    latents, ids = torch.randn(2, 4, 16, 16), tokens(["a red star"] * 2)

    losses = []
    for module, more in ((denoiser, ()), (controlled, (to_pixels(PICTURES),))):
        torch.manual_seed(3)
        with torch.no_grad():
            losses.append(float(module.loss(latents, ids, *more)))

    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_new_controlnet_keeps_the_power_of_lines() -> None:
    """With torch's default initialization, eight layers lose the lines, and training starts late."""
    controlnet = ControlledDenoiser(trained_denoiser()).controlnet
    lines = control_pixels(PICTURES)

    with torch.no_grad():
        seen, blank = map(controlnet.controlnet_cond_embedding, (lines, torch.zeros_like(lines)))
        latents = controlnet.conv_in(torch.randn(2, 4, 16, 16))

    assert 0.1 < float((seen - blank).std() / latents.std()) < 10


def test_a_published_ip_adapter_computes_the_same(tmp_path: Path) -> None:
    classifier = _save_run("image-encoder", SceneClassifier())
    trained: ImagePromptedDenoiser = _save_run("ip-adapter", ImagePromptedDenoiser(trained_denoiser()))
    write_ip_adapter(tmp_path)

    pipeline = load_image_generator(CHECKPOINT).pipeline()
    pipeline.load_ip_adapter(tmp_path, subfolder="", weight_name="ip_adapter.safetensors")
    noisy, times = _noisy()
    states = torch.randn(2, 77, 128)
    with torch.no_grad():
        embeds = classifier.encoder(prepare(PICTURES)).image_embeds
        assert _difference(pipeline.encode_image(PICTURES, "cpu", 1)[0], embeds) < CLOSE
        condition = {"image_embeds": [embeds[:, None]]}
        ours, theirs = (
            unet(noisy, times, states, added_cond_kwargs=condition).sample for unet in (trained.unet, pipeline.unet)
        )
        pipeline.set_ip_adapter_scale(0.0)
        without = pipeline.unet(noisy, times, states, added_cond_kwargs=condition).sample

    assert _difference(theirs, ours) < CLOSE
    assert _difference(without, ours) > 2 * CLOSE


def test_the_published_image_processor_is_the_one_of_training(tmp_path: Path) -> None:
    _save_run("image-encoder", SceneClassifier())
    _save_run("ip-adapter", ImagePromptedDenoiser(trained_denoiser()))
    write_ip_adapter(tmp_path)

    read = CLIPImageProcessorPil.from_pretrained(tmp_path / "image_encoder")
    pixels = read(images=PICTURES, return_tensors="pt").pixel_values

    assert torch.equal(pixels, prepare(PICTURES))
    assert CLIPVisionModelWithProjection.from_pretrained(tmp_path / "image_encoder").config.image_size == 64


def test_a_published_lcm_lora_computes_the_same(tmp_path: Path) -> None:
    trained = _save_run(lcm_lora.RUN, lcm_lora.with_lcm_adapter())
    path = tmp_path / "lcm.safetensors"
    lcm_lora.write_lcm_lora(path)

    generator = load_image_generator(CHECKPOINT)
    inputs = (*_noisy(), torch.randn(2, 77, 128))
    with torch.no_grad():
        plain = generator.unet(*inputs).sample
        generator.set_loras({path: 1.0})
        ours, theirs = (unet(*inputs).sample for unet in (trained.unet, generator.unet))

    assert _difference(theirs, ours) < CLOSE
    assert _difference(theirs, plain) > 10 * CLOSE
    assert path.stat().st_size < 2_000_000


def test_nothing_untrained_is_published(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="train it first"):
        write_embedding(KEEPSAKE, tmp_path / "keepsake.safetensors")
    with pytest.raises(FileNotFoundError, match="train it first"):
        write_controlnet(tmp_path)
    with pytest.raises(FileNotFoundError, match="train it first"):
        write_ip_adapter(tmp_path)
    with pytest.raises(FileNotFoundError, match="train it first"):
        lcm_lora.write_lcm_lora(tmp_path / "lcm.safetensors")

    assert not list(tmp_path.iterdir())
