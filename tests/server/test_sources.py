"""Files by URL, by path, and sent along are the same files."""

from __future__ import annotations

import base64
import io
import re
import shutil
import textwrap
import time
from contextlib import suppress
from hashlib import sha256
from itertools import zip_longest
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from PIL import Image

from deploy.local_server import LocalServer
from lorikeet import Client, InvalidRequest
from tests.journeys.test_killed import stub_of
from tests.server.web import Web

PICTURE = Image.radial_gradient("L").resize((72, 64)).convert("RGB")


def png() -> bytes:
    buffer = io.BytesIO()
    PICTURE.save(buffer, "PNG")
    return buffer.getvalue()


def run(client: Client, tiny: Path, image: Any, lora: Any) -> bytes:
    result = client.image_to_image(
        model_name=str(tiny / "sd15"),
        prompt="a boat",
        image=image,
        loras=[{"path": lora}],
        seed=2,
        num_inference_steps=2,
    )
    return result.images[0].tobytes()


def test_a_url_a_path_and_a_sent_file_are_the_same(client: Client, tiny: Path, web: Web, tmp_path: Path) -> None:
    web.pictures["picture.png"] = png()
    (tmp_path / "picture.png").write_bytes(png())
    lora = tiny / "loras" / "sd15" / "kohya.safetensors"
    by_url = run(client, tiny, web.url("picture.png"), web.url("loras/sd15/kohya.safetensors"))
    assert by_url == run(client, tiny, PICTURE, str(lora))
    assert by_url == run(client, tiny, tmp_path / "picture.png", lora)
    assert by_url == run(client, tiny, png(), "loras/sd15/kohya.safetensors")


def test_a_unet_is_the_same_in_every_form_and_place(client: Client, tiny: Path, web: Web) -> None:
    file = "lcm/unet/diffusion_pytorch_model.safetensors"

    def painted(**fields: Any) -> bytes:
        base = {"model_name": "sd15", "prompt": "a boat", "seed": 2, "num_inference_steps": 2, "scheduler": "LCM"}
        return client.image_to_image(**{**base, **fields}, image=PICTURE).images[0].tobytes()

    by_name = painted(unet_name="lcm/unet")
    assert by_name != painted()
    assert by_name == painted(unet_name="lcm")
    assert by_name == painted(unet_name=file)
    assert by_name == painted(unet_name=tiny / file)
    assert by_name == painted(unet_name=web.url(file)) == painted(unet_name=web.url(file))
    assert web.requests[file] == 1


def test_weights_are_fetched_once_and_pictures_each_time(client: Client, tiny: Path, web: Web) -> None:
    web.pictures["again.png"] = png()
    lora = "loras/sd15/peft.safetensors"
    for _ in range(3):
        run(client, tiny, web.url("again.png"), web.url(lora))
    assert web.requests["again.png"] == 3
    assert web.requests[lora] == 1


BASE64 = base64.b64encode(png()).decode()
PNG_URI = "data:image/png;base64,"


def _image_forms(web: Web) -> list[str]:
    """The same picture, as shells, MIME and other programs write it, and by URLs of every alphabet."""
    names = ("my picture.png", "my%20picture.png", "peñoles.png", "картинка (1).png", "a;b=c.png", "pasted.png \n")
    for name in names:
        web.pictures[quote(name.strip(), safe="/%();=")] = png()
    web.answers["space-location"] = (302, b"Location: /my picture.png", b"")
    web.answers["utf8-location"] = (307, "Location: /картинка (1).png".encode(), b"")
    lines = textwrap.wrap(BASE64, 76)
    return [
        *map(web.url, (*names, "space-location", "utf8-location")),
        *(PNG_URI + end.join(lines) + end for end in ("\n", "\r\n", "\n  ", " ")),
        PNG_URI + " " + BASE64,
        PNG_URI + BASE64.rstrip("="),
        PNG_URI + BASE64.replace("+", "-").replace("/", "_"),
        PNG_URI + BASE64.replace("+", " "),
        PNG_URI + quote(BASE64, safe=""),
        "data:image/png;charset=utf-8;BASE64," + BASE64,
        "data:;base64," + BASE64,
        "data:image/png," + quote(png()),
    ]


def _lora_forms(tiny: Path, local_files: Path, web: Web) -> list[str]:
    """The same LoRA by local names and URLs of every alphabet."""
    content = (tiny / "loras/sd15/kohya.safetensors").read_bytes()
    local = ["青禅_ZEN.safetensors", "my lora (v1.0) [x].safetensors", "pen\u0303oles.safetensors"]
    (local_files / "names").mkdir()
    for name in local:
        (local_files / "names" / name).write_bytes(content)
        web.pictures[quote(f"by-url/{name}", safe="/()[]")] = content
    web.answers["presigned"] = (307, b"Location: /by-url/%E9%9D%92%E7%A6%85_ZEN.safetensors", b"")
    web.answers["api/download/1"] = (
        302,
        b"Location: /presigned?disposition=attachment; filename=Bod Hor.safetensors",
        b"",
    )
    return [
        *(f"names/{name}" for name in local),
        "names/pe\u00f1oles.safetensors\n",  # composed, as others write what a Mac decomposed
        *(web.url(f"by-url/{name}") for name in local),
        web.url("api/download/1"),
    ]


def test_a_file_is_the_same_in_every_way_to_write_it(client: Client, tiny: Path, local_files: Path, web: Web) -> None:
    known = run(client, tiny, png(), tiny / "loras/sd15/kohya.safetensors")
    images, loras = _image_forms(web), _lora_forms(tiny, local_files, web)
    for image, lora in zip_longest(images, loras):
        assert run(client, tiny, image, lora or loras[0]) == known, (image[:100], lora)


def test_a_checkpoint_may_be_in_a_folder_of_any_name(client: Client, tiny: Path, local_files: Path) -> None:
    shutil.copytree(tiny / "sd15", local_files / "模型 ñ")

    def painted(name: str) -> bytes:
        result = client.image_to_image(model_name=name, prompt="a boat", seed=2, num_inference_steps=1)
        return result.images[0].tobytes()

    assert painted("模型 ñ") == painted("sd15")


LOGIN = b"<!DOCTYPE html><html><head><title>Sign in</title></head></html>"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 3438167540\n"
NO_WEIGHTS = {
    "login": (200, b"", LOGIN, "it is a web page (sign in?)"),
    "login-redirect": (302, b"Location: /login?returnUrl=/1", b"", "it is a web page (sign in?)"),
    "lfs.safetensors": (200, b"", POINTER, "it is a git-LFS pointer: run `git lfs pull`"),
    "owner/name/blob/main/a.safetensors": (200, b"", LOGIN, "a /blob/ page: use /resolve/ in place of /blob/"),
    "api/json": (200, b"", b'{"error": "Unauthorized"}', "it is a JSON document"),
    "download/401": (
        401,
        b"",
        b'{"message": "log in"}',
        "the server answered 401: the host wants a token, see LORIKEET_TOKENS",
    ),
    "download/403": (403, b"", b"", "the server answered 403: the host wants a token, see LORIKEET_TOKENS"),
    "download/empty": (200, b"", b"", "it is empty"),
}


@pytest.mark.parametrize("field", ["loras[0].path", "model_name", "unet_name"])
@pytest.mark.parametrize("name", NO_WEIGHTS)
def test_what_is_no_weight_file_is_named(client: Client, web: Web, field: str, name: str) -> None:
    for path, (status, header, body, _) in NO_WEIGHTS.items():
        web.answers[path] = (status, header, body)
    url = web.url(name)
    named: dict[str, Any] = {"loras": [{"path": url}]} if field.startswith("loras") else {field: url}
    with pytest.raises(InvalidRequest) as caught:
        client.image_to_image(**{"model_name": "sd15", "prompt": "a boat", **named})
    assert str(caught.value).startswith(f"{field}: {url}: ")
    assert NO_WEIGHTS[name][3] in str(caught.value)


def test_what_a_local_or_sent_file_is_instead_is_named(client: Client, local_files: Path) -> None:
    (local_files / "page.safetensors").write_bytes(LOGIN)
    (local_files / "lfs.safetensors").write_bytes(POINTER)
    for value, said in (
        ("page.safetensors", "it is a web page (sign in?)"),
        ("lfs.safetensors", "it is a git-LFS pointer: run `git lfs pull`"),
        (POINTER, "it is a git-LFS pointer: run `git lfs pull`"),
    ):
        with pytest.raises(InvalidRequest, match=re.escape(said)):
            client.image_to_image(model_name="sd15", prompt="a boat", loras=[{"path": value}])
    for image, said in ((LOGIN, "it is a web page"), (BASE64, "write it as data:image/png;base64,iVBORw0K")):
        with pytest.raises(InvalidRequest, match=f"^image_url: .*{re.escape(said)}"):
            client.image_to_image(model_name="sd15", prompt="a boat", image=image)


def test_a_mended_link_works_at_once(client: Client, tiny: Path, web: Web) -> None:
    url, lora = web.url("mended.safetensors"), (tiny / "loras/sd15/kohya.safetensors").read_bytes()
    web.answers["mended.safetensors"] = (200, b'ETag: "1"', LOGIN)
    with pytest.raises(InvalidRequest, match="a web page"):
        run(client, tiny, png(), url)
    web.answers["mended.safetensors"] = (200, b'ETag: "1"', lora)
    assert run(client, tiny, png(), url) == run(client, tiny, png(), lora)
    assert web.requests["mended.safetensors"] == 2


@pytest.mark.parametrize(("name", "said"), [("no/such.png", "the server answered 404"), ("sd15", "not a picture")])
def test_what_cannot_be_fetched_names_its_url(client: Client, tiny: Path, web: Web, name: str, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said) as caught:
        run(client, tiny, web.url(name), "x/y")
    assert str(caught.value).startswith("image_url: ")


def test_the_response_names_the_digest_of_every_file(client: Client, tiny: Path) -> None:
    lora = tiny / "loras" / "sdxl" / "peft.safetensors"
    result = client.image_to_image(
        model_name="sdxl", prompt="a boat", loras=[{"path": str(lora)}], num_inference_steps=1
    )
    files = result.response.receipt.files
    assert files["loras[0].path"] == sha256(lora.read_bytes()).hexdigest()
    unet = tiny / "sdxl" / "unet" / "diffusion_pytorch_model.safetensors"
    assert files["model_name.unet[0]"] == sha256(unet.read_bytes()).hexdigest()
    assert len(files) == 5


def test_a_deleted_store_is_made_anew_and_a_file_has_one_descriptor(
    client: Client, server: LocalServer, tiny: Path, store_folder: Path
) -> None:
    lora = (tiny / "loras/sd15/peft.safetensors").read_bytes()
    known = run(client, tiny, png(), lora)
    (store_folder / "blobs/notes.txt").write_text("no file of the store")
    for _ in range(3):
        shutil.rmtree(store_folder)
        assert run(client, tiny, png(), lora) == known
    assert {path.name for path in (store_folder / "blobs").iterdir()} == {f"{sha256(lora).hexdigest()}.safetensors"}
    calls = [client.submit(model_name=str(tiny / "sd15"), prompt="a boat", loras=[{"path": lora}]) for _ in range(8)]
    # While a file is checked, a second descriptor reads it for a moment.
    counts = set()
    for _ in range(20):
        blobs = _open_files(stub_of(server, "prepare"), store_folder / "blobs")
        counts.add(len(blobs) - len(set(blobs)))
        time.sleep(0.05)
    assert min(counts) == 0
    for call in calls:
        call.result()


def _open_files(pid: int, folder: Path) -> list[str]:
    """The files of a folder that a process has open, once for each descriptor."""
    found = []
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # it was closed meanwhile
            found.append(str(descriptor.readlink()))
    return [name for name in found if name.startswith(str(folder)) and not name.endswith(" (deleted)")]
