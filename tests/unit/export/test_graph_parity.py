"""The graphs compute in OpenVINO what the networks compute in torch, at sizes that differ from the traced ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import pytest
import torch

from runtime.artifacts.flat_fields import flatten
from runtime.artifacts.manifest import Manifest
from runtime.networks.end_positions import end_positions
from runtime.networks.level_size import level_size
from tests.unit.export.conftest import Graphs
from tests.unit.export.fields import graph_inputs
from tests.unit.export.networks import UNETS, TinyNetwork, load
from tests.unit.runtime.engines import noise

TOLERANCE = 5e-5  # of each output's standard deviation; float32 sums of two libraries differ by about 1e-5


class Case(NamedTuple):
    """One call of a UNet: sizes of the latents, and which optional fields it has."""

    rows: int
    height: int
    width: int
    text: int
    residuals: bool
    adapters: int
    tokens: int = 4
    masked: bool = False


CASES = (
    Case(1, 8, 8, 77, residuals=False, adapters=0),
    Case(3, 9, 12, 154, residuals=True, adapters=0),
    Case(2, 16, 9, 77, residuals=False, adapters=1),
    Case(2, 8, 8, 154, residuals=True, adapters=2, tokens=16, masked=True),
    Case(1, 13, 15, 77, residuals=True, adapters=2, masked=True),
)
IMAGE_TOKENS = Case(2, 8, 8, 16, residuals=False, adapters=0)  # in place of the text, as InstantID's ControlNet takes


def assert_equal_outputs(found: Mapping[str, torch.Tensor], expected: Mapping[str, Any]) -> None:
    """Equal names, and values within TOLERANCE of each output's standard deviation."""
    flat = flatten(expected)
    assert found.keys() == flat.keys()
    for name, value in flat.items():
        assert found[name].shape == value.shape, name
        error = (found[name] - value).abs().max() / value.std()
        assert error < TOLERANCE, f"{name}: {error:.2e}"


def denoising_fields(manifest: Manifest, case: Case) -> dict[str, Any]:
    """The inputs that every UNet and ControlNet takes, at the widths of the manifest."""
    axes = {tensor.name: tensor.axes for tensor in manifest.inputs}
    rows, height, width, text = case[:4]
    channels = {"latent": 4, "concat": int(axes["latent"][1]) - 4}
    fields: dict[str, Any] = {
        **{
            name: noise(rows, count, height, width, seed=seed)
            for seed, (name, count) in enumerate(channels.items())
            if count
        },
        "t": torch.linspace(801.0, 17.0, rows),
        "text": noise(rows, text, int(axes["text"][2]), seed=2),
    }
    if "pooled" in axes:
        fields["pooled"] = noise(rows, int(axes["pooled"][1]), seed=3)
        fields["time_ids"] = torch.tensor([[64.0, 80, 0, 8, 64, 72]] * rows)
    if "timestep_cond" in axes:
        fields["timestep_cond"] = noise(rows, int(axes["timestep_cond"][1]), seed=4)
    return fields


def unet_fields(manifest: Manifest, case: Case) -> dict[str, Any]:
    """As `denoising_fields`, with the fields of the case."""
    fields = denoising_fields(manifest, case)
    if case.residuals:
        residuals = [tensor.axes for tensor in manifest.inputs if tensor.name.startswith("residual_")]
        shapes = [(int(axes[1]), int(str(axes[2]).rpartition("_")[2])) for axes in residuals]
        fields["residuals"] = tuple(
            0.3 * noise(case.rows, channels, *_sizes(case, level), seed=20 + index)
            for index, (channels, level) in enumerate(shapes)
        )
    if case.adapters:
        inner = next(int(tensor.axes[3]) for tensor in manifest.inputs if tensor.name == "ip_k")
        shape = (case.rows, case.adapters, case.tokens, inner)
        bias = torch.zeros(shape[:3])
        bias[0, 0, 1] = float("-inf")
        fields |= {"ip_k": noise(*shape, seed=5), "ip_v": noise(*shape, seed=6), "ip_bias": bias}
    if case.masked:
        sizes = [_sizes(case, level) for level in range(4)]
        fields["ip_masks"] = tuple(
            (noise(case.rows, case.adapters + 1, height * width, seed=7) > 0).float() for height, width in sizes
        )
        fields["ip_mask_index"] = torch.arange(case.adapters).expand(case.rows, -1) + 1
    return fields


def _sizes(case: Case, level: int) -> tuple[int, int]:
    return level_size(case.height, level, 1), level_size(case.width, level, 1)


@torch.no_grad()
def expected_outputs(network: TinyNetwork, fields: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = load(network.architecture, network.weights)(**fields)
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
@pytest.mark.parametrize("name", UNETS)
def test_unets(graphs: Graphs, name: str, case: Case) -> None:
    manifest = graphs.artifact(name, "linear").manifest
    fields = unet_fields(manifest, case)
    found = graphs.compiled(name).run(graph_inputs(manifest, fields, {}))
    assert_equal_outputs(found, expected_outputs(graphs.network(name), fields))


def test_a_row_without_timestep_cond_equals_one_of_zeros(graphs: Graphs) -> None:
    manifest = graphs.artifact("everything unet", "linear").manifest
    fields = unet_fields(manifest, CASES[0]) | {"timestep_cond": None}
    found = graphs.compiled("everything unet").run(graph_inputs(manifest, fields, {}))
    assert_equal_outputs(found, expected_outputs(graphs.network("everything unet"), fields))


@pytest.mark.parametrize("case", [*CASES[:2], IMAGE_TOKENS], ids=["one", "three", "image_tokens"])
@pytest.mark.parametrize("name", ["sd controlnet", "sdxl controlnet"])
def test_controlnets(graphs: Graphs, name: str, case: Case) -> None:
    manifest = graphs.artifact(name, "none").manifest
    condition = noise(case.rows, 3, 8 * case.height, 8 * case.width, seed=8).abs()
    fields = denoising_fields(manifest, case) | {"condition": condition}
    found = graphs.compiled(name).run(graph_inputs(manifest, fields, {}))
    assert_equal_outputs(found, expected_outputs(graphs.network(name), fields))


@pytest.mark.parametrize(("rows", "height", "width"), [(1, 8, 8), (3, 9, 12)])
@pytest.mark.parametrize(
    ("name", "field", "channels", "scale"),
    [("sd15 vae_encoder", "pixels", 3, 8), ("sd15 vae_decoder", "latents", 4, 1)],
)
def test_vaes(
    graphs: Graphs, name: str, field: str, channels: int, scale: int, rows: int, height: int, width: int
) -> None:
    fields = {field: noise(rows, channels, scale * height, scale * width).clamp(-1, 1)}
    found = graphs.compiled(name).run(graph_inputs(graphs.artifact(name, "none").manifest, fields, {}))
    assert_equal_outputs(found, expected_outputs(graphs.network(name), fields))


def token_ids(network: TinyNetwork, rows: int) -> torch.Tensor:
    """Ids [rows, 77] whose rows end at different places."""
    vocabulary = network.options["vocab_size"]
    ids = torch.randint(3, vocabulary - 2, (rows, 77), generator=torch.Generator().manual_seed(0))
    for row in range(rows):
        ids[row, 20 + 5 * row :] = vocabulary - 1
    return ids


def text_fields(network: TinyNetwork, ids: torch.Tensor) -> dict[str, torch.Tensor]:
    """What an engine gives to a text encoder's graph for these ids."""
    embedding = network.weights["text_model.embeddings.token_embedding.weight"].float()
    return {"embeddings": embedding[ids], "end": end_positions(ids, network.options["eos_token_id"])}


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("name", ["sd15 text_encoder", "sd2 text_encoder", "sdxl text_encoder_2"])
def test_text_encoders(graphs: Graphs, name: str, rows: int) -> None:
    network = graphs.network(name)
    ids = token_ids(network, rows)
    inputs = graph_inputs(graphs.artifact(name, "linear").manifest, text_fields(network, ids), {})
    assert_equal_outputs(graphs.compiled(name).run(inputs), expected_outputs(network, {"ids": ids}))


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("name", ["image_encoder", "safety_checker"])
def test_networks_of_pictures(graphs: Graphs, name: str, rows: int) -> None:
    fields = {"pixels": noise(rows, 3, 32, 32)}
    found = graphs.compiled(name).run(graph_inputs(graphs.artifact(name, "none").manifest, fields, {}))
    assert_equal_outputs(found, expected_outputs(graphs.network(name), fields))


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("kind", ["base", "plus", "full", "faceid", "faceid_plus"])
def test_image_projections(graphs: Graphs, kind: str, rows: int) -> None:
    name = f"{kind} image_projection"
    options = graphs.network(name).options
    available = {
        "embeds": noise(rows, options["image_embed_dim"], seed=1),
        "face": noise(rows, options["face_embed_dim"], seed=2),
        "penultimate": noise(rows, 17, options["image_embed_dim"], seed=3),
        "shortcut": (torch.arange(rows) % 2).float(),
    }
    taken = {"base": ("embeds",), "faceid": ("face",), "faceid_plus": ("face", "penultimate", "shortcut")}
    fields = {one: available[one] for one in taken.get(kind, ("penultimate",))}
    found = graphs.compiled(name).run(graph_inputs(graphs.artifact(name, "none").manifest, fields, {}))
    assert_equal_outputs(found, expected_outputs(graphs.network(name), fields))
