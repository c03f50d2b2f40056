"""A linear layer that is stored as a 1x1 convolution, or the reverse, with changes that are merged into it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from runtime.checkpoints.checkpoint import Component
from runtime.lora.kinds.difference import Added
from runtime.lora.kinds.dora import PEFT, Decomposed
from runtime.lora.kinds.loha import Hadamard
from runtime.weights.change import Change, LowRank
from runtime.weights.offsets import Offset
from runtime.weights.weight_set import WeightSet
from tests.unit.export.engine_calls import assert_near, run
from tests.unit.export.openvino_engines import make_openvino
from tests.unit.runtime.engines import make_engine, noise
from tests.unit.runtime.merging import Changes, merged
from tests.unit.runtime.tiny_checkpoints import base_tensors, copy_folder, read_component

_LINEAR, _POINTWISE = "decoder.mid_block.attentions.0.to_q.weight", "post_quant_conv.weight"
_INPUTS = {"latents": noise(1, 4, 3, 5)}


@pytest.fixture(scope="module")
def vae(tiny: Path) -> Component:
    return read_component("vae", tiny / "sd15" / "vae")


@pytest.fixture(scope="module")
def turned(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Component:
    """The same weights, each of the two in the other's shape."""
    folder = copy_folder(tiny / "sd15" / "vae", tmp_path_factory.mktemp("turned") / "vae")
    (path,) = folder.glob("*.safetensors")
    tensors = load_file(path)
    tensors |= {_LINEAR: tensors[_LINEAR][:, :, None, None], _POINTWISE: tensors[_POINTWISE][:, :, 0, 0]}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    return read_component("vae", folder)


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("artifacts")


def _changes(base: torch.Tensor) -> Mapping[str, Change]:
    out, into = base.shape[:2]
    low_rank = LowRank(noise(2, into, seed=1), noise(out, 2, seed=2), 0.5)
    half = {"a": noise(out, 2, seed=3), "b": noise(2, into, seed=4)}
    return {
        "LoRA": low_rank,
        "LoHa": Hadamard({f"hada_w{number}_{side}": half[side] for number in "12" for side in "ab"}, 0.5),
        "DoRA": Decomposed(low_rank, noise(out).abs(), PEFT, 1.0),
        "difference": Added(noise(out, into, seed=5), 0.5),
        "IC-Light": Offset(noise(*base.shape, seed=6)),
    }


@pytest.mark.parametrize("kind", ["LoRA", "LoHa", "DoRA", "difference", "IC-Light"])
def test_changes_of_a_weight_in_the_other_shape(artifacts: Path, vae: Component, turned: Component, kind: str) -> None:
    """`turned` and its changes give what the changed tensors give in the network's own shapes."""
    stored = base_tensors(turned)
    assert stored[_LINEAR].dim() == 4 and stored[_POINTWISE].dim() == 2
    changes = {name: _changes(stored[name])[kind] for name in (_LINEAR, _POINTWISE)}
    weights = WeightSet(turned, (Changes(kind, changes),))
    targets = {
        name: merged(weights, name, stored[name]).reshape(base.shape)
        for name, base in base_tensors(vae).items()
        if name in changes
    }
    replaced = {name: Offset(target - base_tensors(vae)[name]) for name, target in targets.items()}
    torch_engine = make_engine("vae_decoder", vae)[0]
    expected = run(torch_engine, WeightSet(vae, (Changes("own", replaced),)), _INPUTS)
    assert_near(run(torch_engine, weights, _INPUTS), expected)
    found = run(make_openvino(artifacts, "vae_decoder", vae)[0], weights, _INPUTS)
    assert_near(found, expected)
    unchanged = run(torch_engine, WeightSet(vae), _INPUTS)["pixels"]
    assert (found["pixels"] - unchanged).abs().max() > 0.01 * unchanged.std()
