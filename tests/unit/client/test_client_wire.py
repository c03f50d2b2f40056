import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from lorikeet import InvalidRequest, LorikeetError, NotFound, Unavailable
from lorikeet.client import file_table
from lorikeet.client.calls import image_call, job_call, read_result, read_status
from lorikeet.client.pack import pack
from lorikeet.client.result import Result
from lorikeet.protocol.errors import make_error
from lorikeet.protocol.parameters import JobParameters
from lorikeet.schema import ImageToImageInput, ImageToImageOutput, JobRequest, LoraWeight

BASE = {"model_name": "org/model", "prompt": "p"}
OUTPUT = b'{"images": [{"url": ""}], "seed": 7, "has_nsfw_concepts": [false], "timings": {"denoiser": 1.5}}'


def strings(*contents: bytes) -> npt.NDArray[Any]:
    return np.array(contents, dtype=np.object_)


def test_request_holds_only_what_was_set() -> None:
    call = image_call(ImageToImageInput(**BASE, seed=1), [], "id", JobParameters("token"))
    assert (call.model, call.request_id, call.parameters) == (
        "lora_image_to_image",
        "id",
        {"job_token": "token"},
    )
    assert list(call.inputs) == ["REQUEST"]
    assert json.loads(call.inputs["REQUEST"][0]) == {**BASE, "seed": 1}
    assert call.outputs == ("RESPONSE", "IMAGES")


def test_files_and_debug_outputs_are_sent_and_asked_for_on_demand() -> None:
    request = ImageToImageInput(**BASE, debug_latents=True, debug_per_pass_latents=True)
    call = image_call(request, [b"same size", b"\0bytes\0"], "id", JobParameters("token"))
    assert list(call.inputs["FILES"]) == [b"same size", b"\0bytes\0"]
    assert call.outputs == ("RESPONSE", "IMAGES", "DEBUG_LATENTS", "DEBUG_PER_PASS_LATENTS")


def test_result_is_read() -> None:
    latents = np.ones((1, 4, 2, 2), np.float32)
    none = np.empty((0, 1, 4, 2, 2), np.float32)
    tensors = {
        "RESPONSE": strings(OUTPUT),
        "IMAGES": strings(b"png"),
        "DEBUG_LATENTS": latents,
        "DEBUG_PER_PASS_LATENTS": none,
    }
    result = read_result("id", tensors)
    assert (result.seed, result.files, result.timings) == (7, [b"png"], {"denoiser": 1.5})
    assert result.latents is latents and result.per_pass_latents is None


def test_a_reply_that_does_not_fit_is_internal() -> None:
    with pytest.raises(LorikeetError, match="seed: Field required") as caught:
        read_result("id", {"RESPONSE": strings(b'{"images": [], "has_nsfw_concepts": []}'), "IMAGES": strings()})
    assert caught.value.status == "INTERNAL"


def test_job_messages() -> None:
    call = job_call(JobRequest(action="cancel", request_id="a", job_token="b"))
    assert (call.model, call.outputs) == ("jobs", ("RESPONSE",))
    assert json.loads(call.inputs["REQUEST"][0]) == {"action": "cancel", "request_id": "a", "job_token": "b"}
    status = read_status({"RESPONSE": strings(b'{"status": "running", "stage": "denoiser", "step": 2, "of": 9}')})
    assert (status.status, status.stage, status.step, status.of) == ("running", "denoiser", 2, 9)


def test_local_files_are_sent_once_each(tmp_path: Path, png: bytes) -> None:
    lora, copy = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    lora.write_bytes(b"lora")
    copy.write_bytes(b"lora")
    request, contents = pack(
        {**BASE, "loras": [{"path": str(lora)}, LoraWeight(path=str(copy))]},
        {
            "image_url": png,
            "ip_adapter": [{"path": lora, "ip_adapter_image_url": [png, Image.new("L", (1, 1))]}],
            "embeddings": [{"path": "https://example.org/e.safetensors"}],
        },
    )
    assert contents[0] == png and b"lora" in contents and len(contents) == 3
    reference = f"tensor:{contents.index(b'lora')}"
    assert [item.path for item in request.loras] == [reference, reference]
    assert request.ip_adapter[0].path == reference
    assert (request.image_url, request.ip_adapter[0].ip_adapter_image_url) == (
        "tensor:0",
        ["tensor:0", "tensor:2"],
    )
    assert Image.open(io.BytesIO(contents[2])).mode == "L"


def test_values_other_than_local_files_stay(tmp_path: Path) -> None:
    values = [
        "org/name",
        "data:image/png;base64," + "A" * 9000,
        "https://h/x",
        str(tmp_path),
        "\0",
        "x" * 5000,
    ]
    request, contents = pack(BASE, {"loras": [{"path": value} for value in values]})
    assert [lora.path for lora in request.loras] == values and contents == []
    assert pack(BASE, {"image_encoder_path": tmp_path})[0].image_encoder_path == str(tmp_path)


def test_a_checkpoint_is_named_by_text_and_sent_only_as_a_path_or_bytes(tmp_path: Path) -> None:
    """Text names a file on the server, because a checkpoint of gigabytes does not fit into a message."""
    model = tmp_path / "model.safetensors"
    model.write_bytes(b"model")
    named, contents = pack(BASE, {"model_name": str(model), "unet_name": str(model)})
    assert (named.model_name, named.unet_name, contents) == (str(model), str(model), [])
    sent, contents = pack(BASE, {"model_name": model, "unet_name": b"unet"})
    assert (sent.model_name, sent.unet_name, contents) == ("tensor:0", "tensor:1", [b"model", b"unet"])


def test_keyword_fields_override_the_request() -> None:
    request, _ = pack(ImageToImageInput(**BASE, seed=1, eta=0.5), {"seed": 2})
    assert json.loads(request.to_json()) == {**BASE, "seed": 2, "eta": 0.5}


def test_bad_input_names_the_field(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"^prompt: Field required; seed: Input should be"):
        pack({"model_name": "m"}, {"seed": -2})
    with pytest.raises(InvalidRequest, match=r"cannot read .*missing\.png: No such file"):
        pack(BASE, {"image_url": tmp_path / "missing.png"})
    with pytest.raises(InvalidRequest, match="a field that takes no file"):
        pack(BASE, {"negative_prompt": b"bytes"})


def test_files_that_do_not_fit_a_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_table, "MAX_FILES_BYTES", 4)
    path = tmp_path / "four"
    path.write_bytes(b"four")
    twice = pack(BASE, {"image_url": path, "ic_light_image_url": b"four"})
    assert twice[1] == [b"four"]
    for second in (b"5", tmp_path / "five"):
        (tmp_path / "five").write_bytes(b"fives")
        with pytest.raises(InvalidRequest, match="exceed 4 bytes"):
            pack(BASE, {"image_url": path, "ic_light_image_url": second})


@pytest.mark.parametrize(
    ("status", "kind", "name"),
    [
        ("StatusCode.INVALID_ARGUMENT", InvalidRequest, "INVALID_ARG"),
        ("400", InvalidRequest, "INVALID_ARG"),
        ("404", NotFound, "NOT_FOUND"),
        ("503", Unavailable, "UNAVAILABLE"),
        ("StatusCode.UNIMPLEMENTED", LorikeetError, "UNSUPPORTED"),
    ],
)
def test_statuses(status: str, kind: type[LorikeetError], name: str) -> None:
    error = make_error("text", status)
    assert (type(error), error.status, str(error)) == (kind, name, "text")


def test_save(tmp_path: Path, png: bytes) -> None:
    response = ImageToImageOutput(images=[], seed=7, has_nsfw_concepts=[])
    one, two = Result("id", response, [png]), Result("id", response, [png, b"\xff\xd8jpeg"])
    assert one.save(tmp_path / "new" / "out.png") == [tmp_path / "new" / "out.png"]
    assert two.save(tmp_path / "out.png") == [tmp_path / "out-0.png", tmp_path / "out-1.png"]
    assert two.save(str(tmp_path / "folder")) == [
        tmp_path / "folder" / "7-0.png",
        tmp_path / "folder" / "7-1.jpg",
    ]
    assert (tmp_path / "folder" / "7-0.png").read_bytes() == png
    assert one.images[0].size == (8, 4)
