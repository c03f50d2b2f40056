"""Which engine serves an architecture on a CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from runtime.engines import select
from runtime.engines.engine import WeightsError
from runtime.engines.select import Engines
from runtime.networks.architecture import Architecture, architecture_of
from runtime.settings import Settings
from tests.unit.runtime.tiny_checkpoints import read_checkpoint


@pytest.fixture
def exported(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> Architecture:
    """An architecture with graphs, on a machine without openvino."""
    monkeypatch.setattr(select, "read_graphs", lambda root, architecture: {"none": object()})
    monkeypatch.setattr(select, "find_spec", lambda name: None)
    return architecture_of("vae_decoder", read_checkpoint(tiny / "sd15").vae.config)


def _engines(engine: Any) -> Engines:
    return Engines(Settings(device="cpu", precision="float32", threads=1, engine=engine), "vae_decoder")


def test_torch_serves_exported_graphs_where_openvino_is_not_installed(
    exported: Architecture, caplog: pytest.LogCaptureFixture
) -> None:
    assert _engines("auto").of(exported).name == "torch"
    assert "openvino is not installed" in caplog.text


def test_a_server_that_must_run_openvino_refuses_without_it(exported: Architecture) -> None:
    with pytest.raises(WeightsError, match="openvino is not installed"):
        _engines("openvino").of(exported)


@pytest.mark.parametrize(
    ("channels", "command"), [(4, "ENGINE=openvino`"), (8, 'ENGINE=openvino ARGS="--in-channels 8"`')]
)
def test_the_error_names_the_command_that_exports(tiny: Path, tmp_path: Path, channels: int, command: str) -> None:
    """A UNet of 8 channels is IC-Light's: an export of the checkpoint makes none of it."""
    config = {**read_checkpoint(tiny / "sd15").unet.config, "in_channels": channels}
    settings = Settings(device="cpu", precision="float32", threads=1, engine="openvino", artifacts=tmp_path)
    with pytest.raises(WeightsError) as raised:
        Engines(settings, "unet").of(architecture_of("unet", config))
    assert f"its unet was not exported: run `make export MODEL=... {command}" in str(raised.value)
