"""The sizes of calls that an engine may compile for: those of the windows, where there are several."""

from __future__ import annotations

from typing import Any

import pytest

from runtime.artifacts.manifest import GraphTensor, Manifest
from runtime.checkpoints.checkpoint import Checkpoint
from runtime.engines.compiled.call_inputs import fixed_shapes
from runtime.engines.engine import CallSizes, never_cancelled
from runtime.engines.select import Engines
from runtime.networks.architecture import NetworkKind, architecture_of
from runtime.settings import Settings
from runtime.stages.bind_component import bind_component
from tests.unit.runtime.fake_engine import FakeBinding, FakeEngine
from tests.unit.runtime.plans import make_plan


class _Engine(FakeEngine):
    """Keeps the sizes that it was bound for."""

    sizes: CallSizes | None = None

    def bind(self, weights: Any, check_cancelled: Any, sizes: Any = None) -> Any:
        self.sizes = sizes
        return FakeBinding()


TILES = {"tile_width": 128, "tile_height": 160}


@pytest.mark.parametrize(
    ("kind", "size", "tiles", "expected"),
    [
        ("unet", 256, {}, CallSizes(2, 32, 32)),
        ("unet", 256, TILES, CallSizes(2, 20, 16)),
        ("unet", 320, {}, None),
        ("unet", 320, TILES, CallSizes(2, 20, 16)),
        ("unet", 256, {"tile_width": 136}, None),
        ("unet", 512, {}, CallSizes(2, 64, 64)),  # the VAE alone has tiles
        ("vae_decoder", 256, {}, CallSizes(1, 32, 32)),
        ("vae_decoder", 256, TILES, None),
        ("vae_encoder", 512, {}, None),
    ],
)
def test_the_sizes_of_a_networks_calls(
    monkeypatch: pytest.MonkeyPatch,
    settings: Settings,
    sd15: Checkpoint,
    kind: NetworkKind,
    size: int,
    tiles: dict[str, Any],
    expected: CallSizes | None,
) -> None:
    named = ("256x256", "512x512", "128x160")
    engines, engine = Engines(settings.model_copy(update={"static_shapes": named}), kind), _Engine()
    monkeypatch.setattr(engines, "of", lambda *_: engine)
    plan = make_plan(sd15, size=size, vae_tile_above=400, **tiles)
    component = sd15.unet if kind == "unet" else sd15.vae
    bind_component(engines, kind, plan, component, never_cancelled, 2 if kind == "unet" else 1)
    assert engine.sizes == expected


@pytest.mark.parametrize("levels", [2, 3, 4])
def test_fixed_pictures_have_the_vaes_factor(levels: int) -> None:
    architecture = architecture_of("vae_encoder", {"block_out_channels": [16] * levels})
    axes = ("rows", 3, "pixel_height", "pixel_width")
    manifest = Manifest(
        exporter=1,
        kind="vae_encoder",
        architecture=architecture.digest,
        low_rank="none",
        opset=18,
        versions={},
        inputs=(GraphTensor(name="pixels", dtype="float32", axes=axes),),
        outputs=(),
        initializers=0,
        outside=(),
        graph_sha256="",
        graph_bytes=0,
    )
    factor = 2 ** (levels - 1)
    assert fixed_shapes(manifest, architecture, CallSizes(1, 6, 10)) == {"pixels": [1, 3, 6 * factor, 10 * factor]}
