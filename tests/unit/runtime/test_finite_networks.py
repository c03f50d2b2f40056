"""A network beside the checkpoint with a number that is not finite is refused when it is loaded, with its field."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from runtime.checkpoints.checkpoint import Checkpoint, Component
from runtime.checkpoints.read_controlnet import read_controlnet
from runtime.checkpoints.read_image_encoder import read_image_encoder
from runtime.checkpoints.read_ip_adapter import read_ip_adapter
from runtime.checkpoints.read_safety_checker import read_safety_checker
from runtime.engines.engine import never_cancelled
from runtime.engines.select import Engines
from runtime.files.located import SingleFile
from runtime.jobs.job_table import JobRef
from runtime.networks.architecture import NetworkKind
from runtime.settings import Settings
from runtime.stage_errors import InvalidArgument
from runtime.stages.bind_component import bind_component
from tests.tiny.safety_checker import write_safety_checker
from tests.unit.runtime.plans import make_plan
from tests.unit.runtime.tiny_checkpoints import digest

Read = Callable[[Path, Checkpoint], Component]
ADAPTER = "ip_adapters/sd15/base.safetensors"


def _encoder(path: Path, checkpoint: Checkpoint) -> Component:
    return read_image_encoder(digest(path), json.loads(path.with_name("config.json").read_text()))


def _checker(path: Path, checkpoint: Checkpoint) -> Component:
    return read_safety_checker(digest(path), json.loads(path.with_name("config.json").read_text()))


NETWORKS: dict[str, tuple[str, NetworkKind, str, Read]] = {
    "controlnet": (
        "controlnets/sd15_original.safetensors",
        "controlnet",
        "control_model.zero_convs.0.0.bias",
        lambda path, checkpoint: read_controlnet(SingleFile(digest(path)), checkpoint.unet, digest),
    ),
    "projection": (
        ADAPTER,
        "image_projection",
        "image_proj.proj.weight",
        lambda path, _: read_ip_adapter(digest(path)),
    ),
    "keys": (ADAPTER, "image_projection", "ip_adapter.1.to_k_ip.weight", lambda path, _: read_ip_adapter(digest(path))),
    "image_encoder": (
        "ip_adapters/sd15/image_encoder/model.safetensors",
        "image_encoder",
        "visual_projection.weight",
        _encoder,
    ),
    "safety_checker": ("checker/model.safetensors", "safety_checker", "concept_embeds", _checker),
}


@pytest.fixture
def write(tiny: Path, tmp_path: Path) -> Callable[[str, str, float], Path]:
    """Write a copy of a network's file and of the config.json beside it, with another number at the end of a tensor."""

    def written(name: str, tensor: str, number: float) -> Path:
        source = tiny / name
        if not source.exists():
            write_safety_checker(tmp_path / "checker", 0.3)
            source = tmp_path / name
        tensors = load_file(source)
        tensors[tensor] = tensors[tensor].clone()
        tensors[tensor].view(-1)[-1] = number
        target = tmp_path / "copy" / source.name
        target.parent.mkdir()
        save_file(tensors, target)
        if (config := source.with_name("config.json")).exists():
            target.with_name("config.json").write_bytes(config.read_bytes())
        return target

    return written


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 0.5])
@pytest.mark.parametrize("name", NETWORKS)
def test_it_is_refused_with_its_field(
    settings: Settings,
    sd15: Checkpoint,
    job: JobRef,
    write: Callable[[str, str, float], Path],
    name: str,
    number: float,
) -> None:
    file, kind, tensor, read = NETWORKS[name]
    component = read(write(file, tensor, number), sd15).model_copy(update={"field": "the_field[0].path"})
    engines, plan = Engines(settings, kind), make_plan(sd15, job)
    if number == 0.5:
        bind_component(engines, kind, plan, component, never_cancelled).release()
        return
    message = f"the_field[0].path: {tensor} has a value that is not finite in float32"
    with pytest.raises(InvalidArgument, match=f"^{re.escape(message)}$"):
        bind_component(engines, kind, plan, component, never_cancelled)


def test_a_checkpoint_is_not_checked(
    tiny: Path, settings: Settings, sd15: Checkpoint, job: JobRef, tmp_path: Path
) -> None:
    """Its text encoder may have vectors of tokens that no prompt uses."""
    encoder = sd15.text_encoders[0]
    (file,) = encoder.files
    tensors = load_file(file.path)
    name = next(name for name in tensors if name.endswith("token_embedding.weight"))
    tensors[name][-100] = torch.nan
    save_file(tensors, tmp_path / "model.safetensors")
    stored = digest(tmp_path / "model.safetensors")
    spoiled = file.model_copy(update={"path": stored.path, "digest": stored.digest, "fingerprint": ""})
    component = Component(**{**encoder.model_dump(), "files": (spoiled,)})
    plan = make_plan(sd15, job)
    bind_component(Engines(settings, "text_encoder"), "text_encoder", plan, component, never_cancelled).release()
