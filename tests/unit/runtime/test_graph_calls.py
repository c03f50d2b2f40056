"""The sizes of a component's calls are known before the first, and an error of a size names the request's field."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from runtime.artifacts.graph_call import GraphCall
from runtime.checkpoints.checkpoint import Checkpoint
from runtime.checkpoints.read_controlnet import read_controlnet
from runtime.engines.engine import Inputs, SizesError, never_cancelled
from runtime.engines.select import Engines
from runtime.engines.torch.torch_engine import TorchEngine
from runtime.files.located import Folder
from runtime.jobs.job_table import JobRef, JobTable
from runtime.networks.architecture import Architecture, NetworkKind
from runtime.plan import CONTROL_IMAGE, FOREGROUND, PicturePlan
from runtime.settings import Settings
from runtime.stage_errors import InvalidArgument
from runtime.stages.bind_component import bind_component
from runtime.stages.denoiser.stage import DenoiserStage
from runtime.stages.graph_calls import graph_calls
from runtime.stages.vae.stage import VaeDecoderStage, VaeEncoderStage
from tests.unit.runtime.engines import noise
from tests.unit.runtime.plans import make_plan, run_stage
from tests.unit.runtime.tiny_checkpoints import digest

CONTROLNET = {"path": "a", "image_url": "a"}
TILES = {"tile_width": 128, "tile_height": 160}


@pytest.mark.parametrize(
    ("kind", "tokens", "fields", "expected"),
    [
        ("unet", 231, {}, {GraphCall(2, 40, 40, 3, 0, 1)}),
        ("unet", 77, TILES, {GraphCall(2, 20, 16, 1, 0, 1)}),
        ("controlnet", 154, {}, {GraphCall(2, 40, 40, 0, 0, 154)}),
        ("controlnet", 16, TILES, {GraphCall(2, 20, 16, 0, 0, 16)}),
        ("vae_decoder", 77, {}, {GraphCall(2, 40, 40, 1, 0)}),
        (
            "vae_encoder",
            77,
            {"vae_tile_above": 256},  # tiles of 16 latents, 12 apart
            {GraphCall(2, height, width, 1, 0) for height in (16, 4) for width in (16, 4)},
        ),
        ("image_projection", 257, {}, {GraphCall(2, 1, 1, 1, 0, 257)}),
        ("text_encoder", 77, {}, {GraphCall(2, 1, 1, 1, 0, 77)}),
    ],
)
def test_the_calls_of_a_component(
    sd15: Checkpoint, kind: NetworkKind, tokens: int, fields: dict[str, Any], expected: set[GraphCall]
) -> None:
    assert graph_calls(kind, make_plan(sd15, size=320, **fields), 2, tokens) == expected


@pytest.mark.parametrize(
    ("axis", "fields", "field"),
    [
        ("height", {}, "image_size"),
        ("pixel_width", {}, "image_size"),
        ("width", TILES, "tile_width"),
        ("pixel_height", TILES, "tile_height"),
        ("height", {"tile_width": 128}, "image_size"),
        ("height", {"tile_width": 128, "image_url": "a"}, "image_url"),
        ("height", {"image_url": "a", "image_size": "square"}, "image_url"),
        ("width", {"image_url": "a", "controlnets": [CONTROLNET]}, r"controlnets\[0\]\.image_url"),
        ("width", {"controlnets": [CONTROLNET]}, r"controlnets\[0\]\.image_url"),
        ("width", {"controlnets": [CONTROLNET], "image_size": "square"}, "image_size"),
        ("width", {"ic_light_image_url": "a"}, "ic_light_image_url"),
        ("text_length", {"prompt_weighting": True}, "prompt"),
        ("adapters", {}, "ip_adapter"),
        ("ip_tokens", {}, "ip_adapter"),
        ("rows", {}, "model_name"),
    ],
)
def test_the_error_names_the_field_of_the_size(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, sd15: Checkpoint, axis: str, fields: dict[str, Any], field: str
) -> None:
    def refuse(*_: object) -> Any:
        raise SizesError(axis, "17 of them; the plan takes 3 to 16")

    engines = Engines(settings, "unet")
    monkeypatch.setattr(engines, "of", refuse)
    plan = make_plan(sd15, size=320, **fields)
    named = {FOREGROUND: "ic_light_image_url", CONTROL_IMAGE.format(0): "controlnets"}
    more = [PicturePlan(field=one, height=320, width=320, offset=0) for one, name in named.items() if name in fields]
    plan = plan.model_copy(update={"pictures": (*more, *plan.pictures)})
    with pytest.raises(InvalidArgument, match=f"^{field}: 17 of them; the plan takes 3 to 16"):
        bind_component(engines, "unet", plan, sd15.unet, never_cancelled, 2, 77)


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Compares each call of torch with what was announced. Returns how many there were, by kind of network."""
    announced: dict[Architecture, Collection[GraphCall]] = {}
    counts: dict[str, int] = defaultdict(int)
    of: Any = Engines.of
    run: Any = TorchEngine.run

    def announce(engines: Engines, architecture: Architecture, calls: Collection[GraphCall] = ()) -> Any:
        announced[architecture] = calls
        return of(engines, architecture, calls)

    def compare(engine: Any, rows: Sequence[tuple[Any, Inputs]]) -> Any:
        architecture = engine._architecture
        assert any(_has(call, len(rows), rows[0][1]) for call in announced[architecture]), announced[architecture]
        counts[architecture.kind] += 1
        return run(engine, rows)

    monkeypatch.setattr(Engines, "of", announce)
    monkeypatch.setattr(TorchEngine, "run", compare)
    return counts


def _has(call: GraphCall, rows: int, row: Inputs) -> bool:
    """Whether the rows of a call have its sizes."""
    shapes = {name: tuple(value.shape) for name, value in row.items() if isinstance(value, torch.Tensor)}
    picture, text = (call.height, call.width), 77 * call.chunks or call.tokens
    expected: dict[str, tuple[int, ...]] = {
        "latent": picture,
        "latents": picture,
        "pixels": (8 * call.height, 8 * call.width),
        "condition": (8 * call.height, 8 * call.width),
        "text": (text, 32),
        "ip_k": (call.adapters, call.tokens),
    }
    found = {name: shape[:2] if name in ("text", "ip_k") else shape[1:] for name, shape in shapes.items()}
    has_adapters = "ip_k" in shapes or "condition" in shapes or not call.adapters
    return call.rows == rows and has_adapters and all(found.get(name, size) == size for name, size in expected.items())


@pytest.mark.parametrize("fields", [{}, TILES])
def test_the_denoiser_announces_its_calls(
    checked: dict[str, int],
    tiny: Path,
    settings: Settings,
    job_table: JobTable,
    sd15: Checkpoint,
    job: JobRef,
    fields: dict[str, Any],
) -> None:
    """With a ControlNet, and a text of two chunks."""
    folder, height, width = tiny / "controlnets" / "sd15", 256, 192
    asked = [{"path": "a", "image_url": "tensor:0"}]
    plan = make_plan(sd15, job, size=width, height=height, num_inference_steps=1, controlnets=asked, **fields)
    picture = PicturePlan(field=CONTROL_IMAGE.format(0), tensor="CONTROLS", height=height, width=width, offset=0)
    network = read_controlnet(Folder(folder, folder), sd15.unet, digest)
    plan = plan.model_copy(update={"controlnets": (network,), "pictures": (picture,)})
    empty = {"IP_KEYS": 4, "IP_VALUES": 4, "IP_BIAS": 2, "IP_TOKENS": 3}
    inputs = {name: np.zeros((0,) * axes, np.float32) for name, axes in empty.items()} | {
        "LATENT_MEAN": np.zeros((0, *plan.latents_shape[1:]), np.float32),
        "LATENT_STD": np.zeros((0, *plan.latents_shape[1:]), np.float32),
        "CONCAT": np.zeros((0, *plan.latents_shape[2:]), np.float32),
        "CONTROLS": np.zeros(picture.nbytes, np.uint8),
        "PROMPT_EMBEDS": noise(1 + plan.guided, 154, 32).numpy(),
        "POOLED_EMBEDS": np.zeros((1 + plan.guided, 0), np.float32),
    }
    assert run_stage(DenoiserStage(settings, job_table), plan, inputs).tensors
    assert checked["unet"] == checked["controlnet"] > (1 if fields else 0)


@pytest.mark.parametrize("fields", [{}, {"tile_width": 128, "tile_height": 128}])
def test_the_vae_announces_its_calls(
    checked: dict[str, int],
    settings: Settings,
    job_table: JobTable,
    sd15: Checkpoint,
    job: JobRef,
    fields: dict[str, Any],
) -> None:
    """Tiles at the edges are smaller."""
    plan = make_plan(sd15, job, size=262, height=199, image_url="tensor:0", **fields)
    assert run_stage(
        VaeEncoderStage(settings, job_table), plan, {"PICTURES": np.zeros(3 * 262 * 199, np.uint8)}
    ).tensors
    assert run_stage(VaeDecoderStage(settings, job_table), plan, {"LATENTS": noise(1, 4, 25, 33).numpy()}).tensors
    assert checked["vae_encoder"] == checked["vae_decoder"] == (9 if fields else 1)
