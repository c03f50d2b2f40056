"""Every way in: gRPC and HTTP with tritonclient, curl, perf_analyzer."""

from __future__ import annotations

import base64
import io
import json
import shlex
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tritonclient.grpc
import tritonclient.http
from PIL import Image

from deploy.local_server import LocalServer
from runtime.settings import ROOT, tools_folder

MODEL = "lora_image_to_image"
Transport = Any


def transports(server: LocalServer) -> dict[str, tuple[Transport, Any]]:
    grpc = tritonclient.grpc.InferenceServerClient(server.grpc.removeprefix("grpc://"))
    http = tritonclient.http.InferenceServerClient(server.http.removeprefix("http://"))
    return {"grpc": (tritonclient.grpc, grpc), "http": (tritonclient.http, http)}


def png(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize((width, height)).convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()


def tensor(module: Transport, name: str, array: npt.NDArray[Any]) -> Any:
    kind = {"O": "BYTES", "u": "UINT8"}[array.dtype.kind]
    found = module.InferInput(name, list(array.shape), kind)
    found.set_data_from_numpy(array)
    return found


def request(tiny: Path, **fields: Any) -> dict[str, Any]:
    return {"model_name": str(tiny / "sd15"), "prompt": "a fish", "seed": 1, "num_inference_steps": 2, **fields}


@pytest.mark.parametrize("way", ["grpc", "http"])
def test_all_public_tensors_with_tritonclient(server: LocalServer, tiny: Path, way: str) -> None:
    module, connection = transports(server)[way]
    body = request(tiny, image_url="tensor:0", num_images=2, debug_latents=True, debug_per_pass_latents=True)
    inputs = [
        tensor(module, "REQUEST", np.array([json.dumps(body).encode()], np.object_)),
        tensor(module, "FILES", np.array([png(72, 64)], np.object_)),
    ]
    found = connection.infer(MODEL, inputs)
    response = json.loads(found.as_numpy("RESPONSE")[0])
    images = found.as_numpy("IMAGES")
    assert len(images) == len(response["images"]) == 2
    assert Image.open(io.BytesIO(images[0])).size == (72, 64)
    assert response["seed"] == 1
    assert response["has_nsfw_concepts"] == [False, False]
    engine = response["receipt"]["engine"]
    assert engine["name"] == "torch" and engine["precision"] == "float32"
    assert {"prepare", "text_encoder", "vae_encoder", "denoiser", "vae_decoder", "finish"} <= response["timings"].keys()
    assert found.as_numpy("DEBUG_LATENTS").shape == (2, 4, 8, 9)
    passes = found.as_numpy("DEBUG_PER_PASS_LATENTS")
    assert passes.shape[1:] == (2, 4, 8, 9)
    assert np.array_equal(passes[-1], found.as_numpy("DEBUG_LATENTS"))


@pytest.mark.parametrize("way", ["grpc", "http"])
def test_the_image_tensor_is_the_one_picture(server: LocalServer, tiny: Path, way: str) -> None:
    module, connection = transports(server)[way]

    def run(*more: Any, **fields: Any) -> bytes:
        body = np.array([json.dumps(request(tiny, **fields)).encode()], np.object_)
        found = connection.infer(MODEL, [tensor(module, "REQUEST", body), *more])
        return bytes(found.as_numpy("IMAGES")[0])

    encoded = png(64, 64)
    by_tensor = run(tensor(module, "IMAGE", np.frombuffer(encoded, np.uint8)))
    uri = "data:image/png;base64," + base64.b64encode(encoded).decode()
    assert by_tensor == run(image_url=uri)
    assert by_tensor != run()


def curl(arguments: list[str], **options: Any) -> dict[str, Any]:
    done = subprocess.run(["curl", "-sS", *arguments], capture_output=True, timeout=60, check=True, **options)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def readme_curl() -> list[str]:
    """The arguments of the README's curl command, as a shell would split them."""
    text = (ROOT / "README.md").read_text()
    command = text[text.index("curl -s http") :].split("\n```")[0].replace("\\\n", " ")
    return shlex.split(command)[1:]


def test_curl_as_the_readme_shows_it(server: LocalServer) -> None:
    arguments = [part.replace("http://127.0.0.1:8000", server.http) for part in readme_curl()]
    reply = curl(arguments)
    response = json.loads(reply["outputs"][0]["data"][0])
    uri = response["images"][0]["url"]
    assert uri.startswith("data:image/png;base64,")
    picture = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    assert picture.size == (response["images"][0]["width"], response["images"][0]["height"])


@pytest.mark.parametrize("way", ["grpc", "http"])
def test_perf_analyzer(server: LocalServer, way: str) -> None:
    data = ROOT / "benchmarks" / "perf_analyzer" / "image_to_image.json"
    address = {"grpc": server.grpc, "http": server.http}[way].partition("://")[2]
    command = [str(tools_folder() / "bin" / "perf_analyzer"), "-m", MODEL, "-i", way, "-u", address]
    command += ["--input-data", str(data), "--concurrency-range", "2", "--request-count", "6"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Request count: 6" in done.stdout, done.stdout
