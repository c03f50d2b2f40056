"""The receipt says which LoRAs applied, and how strongly; from it, a request is sent again with equal bytes."""

from __future__ import annotations

import json
from collections import Counter
from hashlib import sha256
from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.numpy import load_file
from typer.testing import CliRunner

from deploy.local_server import LocalServer
from lorikeet import Client, Result
from lorikeet.cli import app
from lorikeet.schema import AppliedLora

SCALES = {"kohya": 0.75, "peft": -0.5}


@pytest.fixture(scope="module")
def result(client: Client, tiny: Path) -> Result:
    loras = [{"path": f"loras/sd15/{name}.safetensors", "scale": scale} for name, scale in SCALES.items()]
    return client.image_to_image(
        model_name="sd15", prompt="a fish", loras=loras, num_inference_steps=2, num_images=2, extra="unknown"
    )


def _expected(path: Path, scale: float) -> Counter[tuple[int, float]]:
    """(rank, effective scale) of each layer: scale times alpha / rank. PEFT's alphas are in the file's metadata."""
    found: Counter[tuple[int, float]] = Counter()
    with safe_open(path, "np") as file:
        noted = json.loads((file.metadata() or {}).get("lora_adapter_metadata", "{}"))
        for key in file.keys():  # noqa: SIM118 (not a mapping)
            if ".lora_A." in key:
                alpha = noted[f"{key.partition('.')[0]}.lora_alpha"]
            elif ".lora_down." in key:
                alpha = float(file.get_tensor(key.partition(".lora_down")[0] + ".alpha"))
            else:
                continue
            rank = len(file.get_tensor(key))
            found[rank, round(scale * alpha / rank, 6)] += 1
    return found


def test_the_receipt_of_two_loras_is_what_their_files_say(result: Result, tiny: Path) -> None:
    receipt = result.response.receipt
    for index, (name, scale) in enumerate(SCALES.items()):
        lora, path = receipt.loras[index], tiny / "loras" / "sd15" / f"{name}.safetensors"
        tensors = load_file(path)
        assert (lora.field, lora.scale) == (f"loras[{index}].path", scale)
        assert lora.digest == sha256(path.read_bytes()).hexdigest() == receipt.files[lora.field]
        assert (lora.tensors, lora.matched, lora.unmatched) == (len(tensors), len(tensors), [])
        assert _groups(lora) == _expected(path, scale)
        assert lora.layers == sum(_groups(lora).values())


def _groups(lora: AppliedLora) -> Counter[tuple[int, float]]:
    found: Counter[tuple[int, float]] = Counter()
    for group in lora.groups:
        assert group.rank is not None
        found[group.rank, round(group.effective_scale, 6)] += group.layers
    return found


def test_it_holds_what_the_pictures_follow_from(result: Result) -> None:
    receipt = result.response.receipt
    assert receipt.seed == result.seed
    assert (receipt.engine.name, receipt.engine.precision, receipt.engine.block_rows) == ("torch", "float32", 2)
    assert receipt.engine.threads > 0 and receipt.engine.device
    assert {"torch", "diffusers", "lorikeet", "python"} <= receipt.versions.keys()
    assert receipt.request["prompt"] == "a fish"
    for image in result.images:
        assert json.loads(image.info["lorikeet"])["loras"] == json.loads(result.response.to_json())["receipt"]["loras"]


@pytest.mark.parametrize("form", ["response", "picture"])
def test_a_replay_gives_equal_images(result: Result, server: LocalServer, tmp_path: Path, form: str) -> None:
    if form == "response":
        original = tmp_path / "response.json"
        original.write_text(result.response.to_json())
    else:
        original = result.save(tmp_path / "out.png")[1]
    done = CliRunner().invoke(app, ["replay", str(original), "--url", server.grpc])
    assert (done.exit_code, done.output.splitlines()[-1]) == (0, "the images are equal"), done.output
    assert "differs" not in done.output


def test_a_replay_of_another_server_says_what_differs(result: Result, server: LocalServer, tmp_path: Path) -> None:
    response = json.loads(result.response.to_json())
    response["receipt"]["engine"]["threads"] = 77
    response["images"][0]["sha256"] = "0" * 64
    (tmp_path / "response.json").write_text(json.dumps(response))
    done = CliRunner().invoke(app, ["replay", str(tmp_path / "response.json"), "--url", server.grpc])
    assert done.exit_code == 3
    assert "differs: engine.threads: 77, now " in done.output and "the images differ" in done.output
