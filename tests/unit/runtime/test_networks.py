"""Networks: through the torch engine, each computes what diffusers' or transformers' own computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from runtime.checkpoints.checkpoint import Checkpoint, Component
from runtime.engines.engine import WeightsError, never_cancelled
from runtime.engines.select import Engines
from runtime.networks.architecture import NetworkKind, architecture_of
from runtime.settings import Settings
from runtime.weights.weight_set import WeightSet
from tests.unit.runtime.engines import assert_near, make_engine, noise, predict, run, unet_inputs
from tests.unit.runtime.tiny_checkpoints import read_checkpoint, read_component

MODELS = ("sd15", "sdxl")


@pytest.fixture(params=MODELS)
def folder(tiny: Path, request: pytest.FixtureRequest) -> Path:
    return tiny / str(request.param)


@pytest.fixture
def checkpoint(folder: Path) -> Checkpoint:
    return read_checkpoint(folder)


@pytest.fixture(autouse=True)
def no_gradients() -> Any:
    with torch.no_grad():
        yield


def _answers(kind: NetworkKind, component: Component, inputs: dict[str, Any]) -> Any:
    engine, _ = make_engine(kind, component)
    return run(engine, WeightSet(component), inputs)


def _diffusers_unet(folder: Path, inputs: dict[str, Any]) -> torch.Tensor:
    unet = UNet2DConditionModel.from_pretrained(folder / "unet")
    added = {"text_embeds": inputs["pooled"], "time_ids": inputs["time_ids"]} if "pooled" in inputs else None
    sample: torch.Tensor = unet(inputs["latent"], inputs["t"], inputs["text"], added_cond_kwargs=added).sample
    return sample


def test_the_unet(folder: Path, checkpoint: Checkpoint) -> None:
    inputs = unet_inputs(checkpoint.kind)
    expected = _diffusers_unet(folder, inputs)
    assert_near(_answers("unet", checkpoint.unet, inputs)["prediction"], expected)


def test_the_vae_encoder(folder: Path, checkpoint: Checkpoint) -> None:
    pixels = noise(1, 3, 64, 72).clamp(-1, 1)
    expected = AutoencoderKL.from_pretrained(folder / "vae").encode(pixels).latent_dist
    found = _answers("vae_encoder", checkpoint.vae, {"pixels": pixels})
    assert_near(found["mean"], expected.mean)
    assert_near(found["std"], expected.std)


@pytest.mark.parametrize("model", [*MODELS, "sd15-oldnames"])
def test_the_vae_decoder(tiny: Path, model: str) -> None:
    latents = noise(1, 4, 8, 9)
    expected = AutoencoderKL.from_pretrained(tiny / model / "vae").decode(latents).sample
    found = _answers("vae_decoder", read_checkpoint(tiny / model).vae, {"latents": latents})
    assert_near(found["pixels"], expected)


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("sd15/text_encoder", CLIPTextModel),
        ("sdxl/text_encoder", CLIPTextModel),
        ("sdxl/text_encoder_2", CLIPTextModelWithProjection),
    ],
)
def test_the_text_encoders(tiny: Path, name: str, model: Any) -> None:
    folder, part = name.split("/")
    component = {str(part.role): part for part in read_checkpoint(tiny / folder).text_encoders}[part]
    vocabulary = component.config["vocab_size"]
    ids = torch.randint(vocabulary - 2, (1, 77), generator=torch.Generator().manual_seed(0))
    ids[0, 20:] = vocabulary - 1  # the end: CLIP pools at its first place
    expected = model.from_pretrained(tiny / name)(ids, output_hidden_states=True)
    found = _answers("text_encoder", component, {"ids": ids})
    pooled = expected.text_embeds if model is CLIPTextModelWithProjection else expected.pooler_output
    assert_near(found["pooled"], pooled)
    assert len(found["hidden_states"]) == len(found["normed_states"]) == len(expected.hidden_states) == 4
    # The last one of transformers' has the final norm already; every other one is as it left its layer.
    for mine, theirs in zip(found["hidden_states"], expected.hidden_states, strict=True):
        assert_near(mine, theirs)
    assert_near(found["normed_states"][-1], expected.last_hidden_state)


@pytest.mark.parametrize("with_time_ids", [False, True])
def test_the_controlnet(tmp_path: Path, with_time_ids: bool) -> None:
    inputs = unet_inputs("sdxl" if with_time_ids else "sd") | {"condition": noise(2, 3, 64, 64, seed=9).abs()}
    network = _tiny_controlnet(with_time_ids)
    network.save_pretrained(tmp_path)
    component = read_component("controlnet", tmp_path).model_copy(
        update={"name": "controlnets[0]", "field": "controlnets[0].path"}
    )
    added = {"text_embeds": inputs["pooled"], "time_ids": inputs["time_ids"]} if with_time_ids else None
    down, mid = network(
        inputs["latent"],
        inputs["t"],
        inputs["text"],
        controlnet_cond=inputs["condition"],
        added_cond_kwargs=added,
        return_dict=False,
    )
    found = _answers("controlnet", component, inputs)["residuals"]
    assert len(found) == len(down) + 1
    for mine, theirs in zip(found, (*down, mid), strict=True):
        assert theirs.abs().max() > 0.01
        assert_near(mine, theirs)


def _tiny_controlnet(with_time_ids: bool) -> ControlNetModel:
    """Random weights everywhere: a new ControlNet's last layers are zero."""
    added = {"addition_embed_type": "text_time", "addition_time_embed_dim": 8}
    network = ControlNetModel(
        block_out_channels=(16, 32),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        layers_per_block=1,
        norm_num_groups=8,
        attention_head_dim=4,
        cross_attention_dim=80 if with_time_ids else 32,
        conditioning_embedding_out_channels=(8, 8, 16, 16),
        **(added | {"projection_class_embeddings_input_dim": 40 + 6 * 8} if with_time_ids else {}),
    )
    for seed, parameter in enumerate(network.parameters()):
        parameter.copy_(0.2 * noise(*parameter.shape, seed=seed))
    return network.eval()


def test_bfloat16_is_near_float32(folder: Path, checkpoint: Checkpoint) -> None:
    inputs = unet_inputs(checkpoint.kind)
    expected = _diffusers_unet(folder, inputs)
    engine, _ = make_engine("unet", checkpoint.unet, torch.bfloat16)
    found = predict(engine, WeightSet(checkpoint.unet), inputs)
    assert engine.bind(WeightSet(checkpoint.unet), never_cancelled).precision == "bfloat16"
    assert found.dtype == torch.float32
    assert 0 < (found - expected).norm() / expected.norm() < 0.05


def test_in_bfloat16_neighbouring_timesteps_still_differ(sd15: Checkpoint) -> None:
    """bfloat16 itself cannot tell 801 from 802."""
    engine, _ = make_engine("unet", sd15.unet, torch.bfloat16)
    one, two = (
        predict(engine, WeightSet(sd15.unet), unet_inputs("sd", rows=1) | {"t": torch.tensor([t])})
        for t in (801.0, 802.0)
    )
    assert not torch.equal(one, two)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("unet", {"block_out_channels": [16]}),
        ("unet", {"block_out_channels": "wide"}),
        ("unet", {"down_block_types": ["EvilBlock"] * 4}),
        ("unet", {"norm_num_groups": 7}),
        ("unet", {"attention_head_dim": None}),
        ("unet", {"cross_attention_dim": -1}),
        ("vae_decoder", {"latent_channels": -4}),
        ("vae_encoder", {"down_block_types": ["EvilBlock"] * 4}),
        ("text_encoder", {"hidden_size": 33}),
        ("text_encoder", {"num_attention_heads": 0}),
        ("text_encoder", {"hidden_act": "evil"}),
    ],
)
def test_a_configuration_that_cannot_be_built_is_an_error(
    sd15: Checkpoint, kind: NetworkKind, changes: dict[str, Any]
) -> None:
    component = {"u": sd15.unet, "v": sd15.vae, "t": sd15.text_encoders[0]}[kind[0]]
    hostile = component.model_copy(update={"config": component.config | changes})
    with pytest.raises(WeightsError):
        make_engine(kind, hostile)[0].bind(WeightSet(hostile), never_cancelled)


@pytest.mark.parametrize("name", ["attn_implementation", "_attn_implementation", "_attn_implementation_internal"])
def test_a_configuration_cannot_name_code_to_download(sd15: Checkpoint, name: str) -> None:
    encoder = sd15.text_encoders[0]
    hostile = encoder.model_copy(update={"config": encoder.config | {name: "owner/evil-kernel"}})
    make_engine("text_encoder", hostile)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"block_out_channels": [16, 32, 32, 64]}, r"unet lacks 2 of its tensors: .*conv_shortcut"),
        ({"time_cond_proj_dim": 8}, r"unet lacks 1 of its tensors: time_embedding\.cond_proj\.weight"),
        ({"mid_block_type": None}, r"unet: its configuration does not use \d+ of its tensors: mid_block"),
        ({"cross_attention_dim": 40}, r"unet: .*attn2\.to_[kv]\.weight is \[.*, 32\], not \[.*, 40\]"),
    ],
)
def test_weights_that_do_not_fit_their_configuration_are_an_error(
    sd15: Checkpoint, changes: dict[str, Any], reason: str
) -> None:
    other = sd15.unet.model_copy(update={"config": sd15.unet.config | changes})
    engine, cache = make_engine("unet", other)
    with pytest.raises(WeightsError, match=reason):
        engine.bind(WeightSet(other), never_cancelled)
    assert cache.nbytes == 0


def test_a_stage_keeps_the_networks_that_were_requested_last(settings: Settings, sd15: Checkpoint) -> None:
    engines = Engines(settings, "unet")
    first, *others = [
        architecture_of("unet", sd15.unet.config | {"norm_eps": 1e-5 + index * 1e-6}) for index in range(17)
    ]
    kept = engines.of(first)
    for architecture in others[:-1]:
        engines.of(architecture)
    assert engines.of(first) is kept
    second = engines.of(others[0])
    assert engines.of(others[0]) is second
    engines.of(others[-1])
    assert engines.of(others[0]) is second and engines.of(first) is kept
