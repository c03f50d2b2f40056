"""Weights held in bfloat16 and computed with in float32: as a float32 engine that has the same, rounded weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from runtime.checkpoints.checkpoint import Component
from runtime.engines import placement
from runtime.engines.engine import GraphKind
from runtime.engines.placement import place
from runtime.engines.torch.torch_engine import TorchBinding, TorchEngine
from runtime.networks.build import build, graph_of, parameters
from runtime.settings import Settings
from runtime.weights.weight_set import WeightSet, base_tensors
from tests.unit.runtime.engines import assert_near, make_engine, noise, run, unet_inputs
from tests.unit.runtime.tiny_checkpoints import read_checkpoint, read_component

IDS = {"ids": torch.randint(200, (1, 77), generator=torch.Generator().manual_seed(0))}
KINDS: dict[GraphKind, Any] = {
    "unet": unet_inputs("sdxl"),
    "vae_encoder": {"pixels": noise(1, 3, 64, 72)},
    "vae_decoder": {"latents": noise(1, 4, 8, 9)},
    "text_encoder": IDS,
}
NEAR = {"vae_decoder": 0.02}  # diffusers' decoder takes the dtype of its parameters once


def _component(tiny: Path, kind: GraphKind) -> Component:
    checkpoint = read_checkpoint(tiny / "sdxl")
    return {"unet": checkpoint.unet, "text_encoder": checkpoint.text_encoders[1]}.get(kind, checkpoint.vae)


def _wide(kind: GraphKind, component: Component) -> tuple[TorchEngine, TorchBinding]:
    engine, _ = make_engine(kind, component, torch.bfloat16, upcasts=True)
    return engine, engine.bind(WeightSet(component))


def _tensors(value: torch.Tensor | tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return value if isinstance(value, tuple) else (value,)


@pytest.mark.parametrize("kind", KINDS)
def test_it_answers_as_float32_with_the_same_weights(tiny: Path, kind: GraphKind) -> None:
    component = _component(tiny, kind)
    engine, binding = _wide(kind, component)
    exact, _ = make_engine(kind, component)
    names = binding.weights.tensors.keys()
    full = {name: tensor.bfloat16().float() for name, tensor in base_tensors(component) if name in names}
    expected = run(exact, WeightSet(component, "rounded", full=full), KINDS[kind])
    found = engine.run(binding, KINDS[kind])
    assert engine.precision == "bfloat16"
    for name in expected:
        one, other = found[name], expected[name]
        for mine, theirs in zip(_tensors(one), _tensors(other), strict=True):
            assert_near(mine, theirs, NEAR.get(kind, 1e-6))
    assert all(tensor.dtype == torch.bfloat16 for tensor in binding.weights.tensors.values())


def test_it_takes_image_prompts(tiny: Path) -> None:
    component = read_component("unet", tiny / "sd15" / "unet")
    engine, binding = _wide("unet", component)
    found = parameters(build(graph_of("unet", component)))
    widths = [shape[0] for name, (_, _, shape) in found.items() if name.endswith("attn2.to_k.weight")]
    prompt = {part: tuple(noise(2, 1, 4, width) for width in widths) for part in ("ip_k", "ip_v")}
    with_prompt, without = (engine.run(binding, unet_inputs("sd") | more)["prediction"] for more in (prompt, {}))
    assert isinstance(with_prompt, torch.Tensor) and isinstance(without, torch.Tensor)
    assert torch.isfinite(with_prompt).all() and not torch.equal(with_prompt, without)


def test_a_call_that_fails_leaves_nothing_behind(tiny: Path) -> None:
    component = _component(tiny, "unet")
    engine, binding = _wide("unet", component)
    good = KINDS["unet"]
    before = engine.run(binding, good)["prediction"]
    with pytest.raises(RuntimeError):
        engine.run(binding, good | {"text": noise(2, 77, 7)})
    after = engine.run(binding, good)["prediction"]
    assert isinstance(before, torch.Tensor) and isinstance(after, torch.Tensor)
    assert torch.equal(before, after)


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("precision", ["auto", "float32", "bfloat16"])
def test_only_bfloat16_that_was_asked_for_and_is_not_there_is_widened(
    monkeypatch: pytest.MonkeyPatch, precision: Any, native: bool
) -> None:
    monkeypatch.setattr(placement, "has_bfloat16", lambda: native)
    found = place(Settings(device="cpu", precision=precision))
    assert found.upcasts == (precision == "bfloat16" and not native)
    assert found.precision == {"auto": "bfloat16" if native else "float32"}.get(precision, precision)
