"""Weights in bfloat16, upcast to float32: as a float32 engine that has these rounded weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from runtime.checkpoints.checkpoint import Component
from runtime.engines import placement
from runtime.engines.engine import Inputs, never_cancelled
from runtime.engines.placement import place
from runtime.engines.torch.torch_engine import TorchEngine
from runtime.engines.torch.weights_cache import TorchBinding
from runtime.networks.architecture import NetworkKind, architecture_of
from runtime.networks.build import build, parameters
from runtime.settings import Settings
from runtime.weights.weight_set import WeightSet
from tests.unit.runtime.engines import assert_near, batched, make_engine, noise, rows_of, run, unet_inputs
from tests.unit.runtime.merging import Changes, Replacement
from tests.unit.runtime.tiny_checkpoints import base_tensors, read_checkpoint, read_component

IDS = {"ids": torch.randint(200, (1, 77), generator=torch.Generator().manual_seed(0))}
KINDS: dict[NetworkKind, Any] = {
    "unet": unet_inputs("sdxl"),
    "vae_encoder": {"pixels": noise(1, 3, 64, 72)},
    "vae_decoder": {"latents": noise(1, 4, 8, 9)},
    "text_encoder": IDS,
}
NEAR = {"vae_decoder": 0.02}  # diffusers' decoder takes the dtype of its parameters once


def _component(tiny: Path, kind: NetworkKind) -> Component:
    checkpoint = read_checkpoint(tiny / "sdxl")
    return {"unet": checkpoint.unet, "text_encoder": checkpoint.text_encoders[1]}.get(kind, checkpoint.vae)


def _bound(kind: NetworkKind, component: Component) -> tuple[TorchEngine, TorchBinding]:
    engine, _ = make_engine(kind, component, torch.bfloat16, upcasts=True)
    return engine, engine.bind(WeightSet(component), never_cancelled)


def _run(engine: TorchEngine, binding: TorchBinding, batch: Inputs) -> dict[str, Any]:
    return batched(engine.run([(binding, row) for row in rows_of(batch)]))


def _tensors(value: torch.Tensor | tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return value if isinstance(value, tuple) else (value,)


@pytest.mark.parametrize("kind", KINDS)
def test_it_equals_float32_with_the_same_rounded_weights(tiny: Path, kind: NetworkKind) -> None:
    component = _component(tiny, kind)
    engine, binding = _bound(kind, component)
    exact, _ = make_engine(kind, component)
    # The difference of a number and its rounding is exact, and so is their sum.
    rounded = {
        name: Replacement(tensor.bfloat16().float())
        for name, tensor in base_tensors(component).items()
        if name in binding.tensors
    }
    expected = run(exact, WeightSet(component, (Changes("rounded", rounded),)), KINDS[kind])
    found = _run(engine, binding, KINDS[kind])
    assert binding.precision == "bfloat16"
    for name in expected:
        one, other = found[name], expected[name]
        for mine, theirs in zip(_tensors(one), _tensors(other), strict=True):
            assert_near(mine, theirs, NEAR.get(kind, 1e-6))
    assert all(tensor.dtype == torch.bfloat16 for tensor in binding.tensors.values())


def test_it_takes_image_prompts(tiny: Path) -> None:
    component = read_component("unet", tiny / "sd15" / "unet")
    engine, binding = _bound("unet", component)
    found = parameters(build(architecture_of("unet", component.config)))
    width = sum(shape[0] for name, (_, _, shape) in found.items() if name.endswith("attn2.to_k.weight"))
    prompt = {"ip_k": noise(2, 1, 4, width), "ip_v": noise(2, 1, 4, width, seed=1), "ip_bias": torch.zeros(2, 1, 4)}
    inputs = unet_inputs("sd")
    with_prompt, without = (_run(engine, binding, inputs | more)["prediction"] for more in (prompt, {}))
    assert torch.isfinite(with_prompt).all() and not torch.equal(with_prompt, without)


def test_a_call_that_fails_leaves_nothing_behind(tiny: Path) -> None:
    component = _component(tiny, "unet")
    engine, binding = _bound("unet", component)
    good = KINDS["unet"]
    before = _run(engine, binding, good)["prediction"]
    with pytest.raises(RuntimeError):
        _run(engine, binding, good | {"text": noise(2, 77, 7)})
    after = _run(engine, binding, good)["prediction"]
    assert torch.equal(before, after)


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("precision", ["auto", "float32", "bfloat16"])
def test_only_bfloat16_that_the_processor_lacks_is_upcast(
    monkeypatch: pytest.MonkeyPatch, precision: Any, native: bool
) -> None:
    monkeypatch.setattr(placement, "has_bfloat16", lambda: native)
    found = place(Settings(device="cpu", precision=precision))
    assert found.upcasts == (precision == "bfloat16" and not native)
    assert found.precision == {"auto": "bfloat16" if native else "float32"}.get(precision, precision)
