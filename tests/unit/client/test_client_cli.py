import json
import signal
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from typer.testing import CliRunner

from lorikeet.cli import app, parse_lora
from lorikeet.schema import ImageToImageInput
from tests.unit.client.fake_triton import OUTPUT, FakeTriton, ScriptedError

MODEL = ["--model", "org/model", "--prompt", "a cat"]


@pytest.mark.parametrize(
    ("text", "lora"),
    [
        ("a.safetensors", {"path": "a.safetensors"}),
        ("a.safetensors:-0.5", {"path": "a.safetensors", "scale": -0.5}),
        ("https://host/a.safetensors", {"path": "https://host/a.safetensors"}),
        ("https://host:80/a:1", {"path": "https://host:80/a", "scale": 1.0}),
        ("C:a.safetensors", {"path": "C:a.safetensors"}),
    ],
)
def test_parse_lora(text: str, lora: dict[str, object]) -> None:
    assert parse_lora(text) == lora


def test_generate(triton: FakeTriton, tmp_path: Path, png: bytes) -> None:
    image, request, out = tmp_path / "in.png", tmp_path / "request.json", tmp_path / "out.png"
    image.write_bytes(png)
    request.write_text('{"eta": 0.5, "seed": 1, "prompt": "overridden"}')
    triton.output = {**OUTPUT, "warnings": ["foo is unknown"]}
    options = ["--image", str(image), "--lora", "org/l:0.5", "--lora", "org/k", "--scheduler", "Euler A"]
    more = ["--steps", "9", "--seed", "2", "--json", str(request), "--out", str(out), "--format", "jpeg"]
    result = CliRunner().invoke(app, ["generate", "--url", triton.url, *MODEL, *options, *more])
    assert result.exit_code == 0, result.output
    assert out.read_bytes() == png
    assert result.stdout.splitlines() == [str(out), "seed 7", "denoiser 1.50 s"]
    assert "warning: foo is unknown" in result.stderr
    assert triton.received[0].request == {
        "model_name": "org/model",
        "prompt": "a cat",
        "image_url": "tensor:0",
        "loras": [{"path": "org/l", "scale": 0.5}, {"path": "org/k"}],
        "num_inference_steps": 9,
        "scheduler": "Euler A",
        "seed": 2,
        "eta": 0.5,
        "image_format": "jpeg",
    }


def test_errors_are_one_line(triton: FakeTriton, tmp_path: Path) -> None:
    triton.error = ScriptedError(grpc.StatusCode.INVALID_ARGUMENT, "image_url: [not]\nfound")
    run = ["generate", "--url", triton.url]
    for arguments, message in (
        (MODEL, "error: image_url: [not] found\n"),
        (["--prompt", "p"], "error: model_name: Field required\n"),
        ([*MODEL, "--url", "ftp://x"], "error: ftp://x: expected a URL with the scheme grpc, grpcs, http or https\n"),
    ):
        result = CliRunner().invoke(app, [*run, *arguments, "--out", str(tmp_path / "out.png")])
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.endswith(message)


def test_schema() -> None:
    result = CliRunner().invoke(app, ["schema"])
    assert json.loads(result.stdout) == ImageToImageInput.model_json_schema()
    assert "has_nsfw_concepts" in CliRunner().invoke(app, ["schema", "--output"]).stdout


def test_ctrl_c_cancels_on_the_server(triton: FakeTriton, tmp_path: Path) -> None:
    triton.gate.clear()
    command = [sys.executable, "-c", "from lorikeet.cli import app; app()", "generate", "--url", triton.url]
    with subprocess.Popen([*command, *MODEL], cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        assert triton.arrived.wait(10)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=10)
    assert process.returncode == 130
    assert triton.cancelled.is_set()
    assert errors.endswith("error: cancelled\n")
    assert "Traceback" not in errors
