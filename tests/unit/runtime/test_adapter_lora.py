"""The LoRA in the file of a FaceID adapter changes the layers that diffusers changes, and leaves with the adapter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_file as torch_file
from safetensors.torch import save_file as torch_save

from runtime.checkpoints.checkpoint import Checkpoint
from runtime.lora.adapter_lora import has_lora, read_adapter_lora
from runtime.lora.known_loras import lora_summary
from runtime.lora.lora_changes import LoraChanges
from runtime.lora.lora_error import LoraError
from tests.tiny.face_adapters import RANK
from tests.unit.runtime.layout_files import Tensors, named_by_unet, training_run
from tests.unit.runtime.tiny_checkpoints import digest

KINDS = ("sd15", "sdxl")


def adapter(tiny: Path, kind: str, name: str = "faceid") -> Path:
    return tiny / "ip_adapters" / kind / f"{name}.safetensors"


def in_diffusers(unet: Any, path: Path) -> dict[str, torch.Tensor]:
    """Parameter -> its change, from the LoRA that diffusers makes of a file."""
    layers = {
        name.removeprefix("ip_adapter."): torch.from_numpy(tensor)
        for name, tensor in load_file(path).items()
        if name.startswith("ip_adapter.")
    }
    (lora,) = unet._load_ip_adapter_loras([{"ip_adapter": layers}]).values()
    changes = {}
    for name, down in lora.items():
        if not name.endswith(".down.weight"):
            continue
        layer = name.removesuffix("_lora.down.weight").removeprefix("unet.").replace(".processor", "")
        module = f"{layer}.0" if layer.endswith("to_out") else layer
        changes[f"{module}.weight"] = lora[name.replace(".down.", ".up.")] @ down
    return changes


@pytest.mark.parametrize("kind", KINDS)
def test_the_changes_are_those_of_diffusers(request: pytest.FixtureRequest, tiny: Path, kind: str) -> None:
    checkpoint: Checkpoint = request.getfixturevalue(kind)
    path = adapter(tiny, kind)
    expected = in_diffusers(UNet2DConditionModel.from_pretrained(tiny / kind / "unet"), path)
    layers = read_adapter_lora(path, checkpoint.unet).layers
    source = LoraChanges(digest(path), layers, 1.0)
    assert set(source.names) == expected.keys()
    for name, change in expected.items():
        assert source.rank(name) == RANK
        torch.testing.assert_close(source.read(name).delta(torch.zeros(change.shape)), change, rtol=1e-5, atol=1e-6)


NAMINGS: dict[str, Callable[[Tensors, Path], Tensors]] = {
    "training_run_safetensors": lambda tensors, folder: training_run(tensors, folder, with_modules=False),
    "training_run_bin": lambda tensors, folder: training_run(tensors, folder, with_modules=True),
    "conversion": lambda tensors, folder: {
        f"ip_adapter.{name}": tensor
        for name, tensor in named_by_unet(tensors, UNet2DConditionModel.from_pretrained(folder / "unet")).items()
    },
}


@pytest.mark.parametrize("naming", NAMINGS)
def test_the_lora_is_found_under_the_names_of_the_unet(
    tiny: Path, sd15: Checkpoint, tmp_path: Path, naming: str
) -> None:
    path, usual = tmp_path / "a.safetensors", adapter(tiny, "sd15")
    renamed = NAMINGS[naming](torch_file(usual), tiny / "sd15")
    torch_save({name: tensor.clone() for name, tensor in renamed.items()}, path)
    assert has_lora(path)
    found, expected = (
        LoraChanges(digest(file), read_adapter_lora(file, sd15.unet).layers, 1.0) for file in (path, usual)
    )
    assert set(found.names) == set(expected.names)
    for name in expected.names:
        base = torch.zeros(sd15.unet.shapes[name])
        assert torch.equal(found.read(name).delta(base), expected.read(name).delta(base)), name


def test_the_receipt_counts_its_layers(tiny: Path, sd15: Checkpoint) -> None:
    summary = lora_summary(digest(adapter(tiny, "sd15")), sd15.adaptable, of_adapter=True)
    (group,) = summary.receipt.groups
    assert (group.kind, group.rank, group.multiplier, group.layers) == ("LoRA", RANK, 1.0, summary.receipt.layers)
    assert summary.components == {"unet"}
    assert not summary.receipt.unmatched


def test_only_files_with_a_lora_have_one(tiny: Path) -> None:
    found = {name: has_lora(adapter(tiny, "sd15", name)) for name in ("faceid", "faceid_plus", "portrait", "plus")}
    assert found == {"faceid": True, "faceid_plus": True, "portrait": False, "plus": False}


PARTS, ROLES = ("to_q", "to_k", "to_v", "to_out"), ("down", "up")
PLACE = "down_blocks.9.attentions.0.transformer_blocks.0.attn1"
BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "another_rank": ({"ip_adapter.0.to_q_lora.up.weight": np.zeros((16, 3), np.float32)}, "cannot be multiplied"),
    "another_width": ({"ip_adapter.0.to_q_lora.up.weight": np.zeros((8, RANK), np.float32)}, "expected shape"),
    "no_up": ({"ip_adapter.0.to_q_lora.up.weight": None}, "the up tensor is missing"),
    "integers": ({"ip_adapter.0.to_q_lora.up.weight": np.zeros((16, RANK), np.int32)}, "dtype"),
    "no_such_place": (
        {
            **{
                f"ip_adapter.{number}.{part}_lora.{role}.weight": None
                for number in range(32)
                for part in PARTS
                for role in ROLES
            },
            f"unet.{PLACE}.processor.to_q_lora.down.weight": np.zeros((RANK, 16), np.float32),
        },
        f"layer {PLACE}",
    ),
    "no_such_layer": ({"ip_adapter.900.to_q_lora.down.weight": np.zeros((RANK, 16), np.float32)}, "layer 900"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_lora_that_does_not_fit_is_refused(tiny: Path, sd15: Checkpoint, tmp_path: Path, name: str) -> None:
    changes, message = BROKEN[name]
    tensors = {**load_file(adapter(tiny, "sd15")), **changes}
    save_file({key: tensor for key, tensor in tensors.items() if tensor is not None}, tmp_path / "a.safetensors")
    with pytest.raises(LoraError, match=message):
        read_adapter_lora(tmp_path / "a.safetensors", sd15.unet)
