"""Hostile requests to a real server: each is refused in time, by its field, and nobody else notices."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deploy.local_server import LocalServer
from tests.journeys.test_killed import children, stub_of
from tests.server.guarded import FETCH_SECONDS, MAX_FILE, Guarded, guarded_server
from tests.server.hostile import (
    SECONDS,
    Hostile,
    Tensor,
    asking,
    data_uri,
    encoded,
    octets,
    pixel_bomb,
    strings,
    text_bomb,
)
from tests.server.process_memory import peak_megabytes
from tests.server.storm import Storm, good
from tests.server.wires import GrpcWire, answer
from tests.unit.runtime.picture_files import segment, with_segment
from tests.unit.runtime.web import Web, reply

TRICKLES = 24
FILE_FIELDS = ("image_url", "model_name", "unet_name", "loras[0].path")


@pytest.fixture(scope="module")
def world(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A server of this module's own, its folder of traps, and its web servers."""
    with guarded_server(tiny, tmp_path_factory.mktemp("guarded")) as running:
        yield running


@pytest.fixture(scope="module")
def guarded(world: Guarded) -> LocalServer:
    return world.server


@pytest.fixture(scope="module")
def inside(world: Guarded) -> Web:
    return world.inside


@pytest.fixture(scope="module")
def outside(world: Guarded) -> Web:
    return world.outside


@pytest.fixture(scope="module")
def allowed(world: Guarded) -> Path:
    return world.allowed


@pytest.fixture(scope="module")
def wire(guarded: LocalServer) -> Iterator[GrpcWire]:
    connection = GrpcWire(guarded.grpc)
    yield connection
    connection.close()


def naming(field: str, value: str) -> dict[str, Any]:
    """The request's fields by which `field` is `value`."""
    return {"loras": [{"path": value}]} if field.startswith("loras") else {field: value}


def refused(wire: GrpcWire, request: Hostile, start: str) -> str:
    """The rest of the message of a request that is refused, in time, with a message that starts so."""
    begun = time.monotonic()
    found = wire.send(request)
    assert found.status == "INVALID_ARGUMENT", found
    assert found.message.startswith(start), found.message
    assert "Traceback" not in found.message and "\n" not in found.message and len(found.message) < 2000
    assert time.monotonic() - begun < SECONDS
    return found.message.removeprefix(start)


@pytest.mark.parametrize("field", FILE_FIELDS)
@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/plain", "only https URLs are fetched"),
        ("/private", "127.0.0.1 is not a public address"),
        ("/name", "localhost is not a public address"),
        ("/metadata", "169.254.169.254 is not a public address"),
        ("/file", "only https URLs are fetched"),
        ("/circle", "more than 5 redirects"),
    ],
)
def test_a_redirect_leads_nowhere_that_a_url_may_not(
    wire: GrpcWire, inside: Web, field: str, path: str, why: str
) -> None:
    url = inside.url(path)
    assert refused(wire, asking(**naming(field, url)), f"{field}: {url}: ") == why


@pytest.mark.parametrize("field", FILE_FIELDS)
@pytest.mark.parametrize("host", ["localhost", "2130706433", "0x7f.1", "[::1]", "[::ffff:7f00:1]", "10.0.0.1"])
def test_a_name_is_judged_by_where_it_leads(wire: GrpcWire, outside: Web, field: str, host: str) -> None:
    url = f"https://{host}:{outside.host.partition(':')[2]}/x"
    why = refused(wire, asking(**naming(field, url)), f"{field}: {url}: ")
    assert why == f"{host.strip('[]')} is not a public address"


@pytest.mark.parametrize("field", FILE_FIELDS)
@pytest.mark.parametrize("path", ["/announced", "/unannounced"])
def test_a_body_without_end_is_cut_at_the_limit(wire: GrpcWire, inside: Web, field: str, path: str) -> None:
    limit = MAX_FILE // 4 if field == "image_url" else MAX_FILE
    url = inside.url(path)
    assert refused(wire, asking(**naming(field, url)), f"{field}: {url}: ") == f"larger than {limit} bytes"


BOMBS = {
    "pixels": (pixel_bomb(20_000), "expected at most 262144 pixels"),
    "truncated": (encoded()[:-40], "the picture is damaged"),
    "truncated header": (encoded()[:20], "the picture is damaged"),
}


@pytest.mark.parametrize("way", ["FILES", "IMAGE", "data URI", "URL"])
@pytest.mark.parametrize("name", BOMBS)
def test_a_picture_that_is_none_costs_nothing(
    wire: GrpcWire, guarded: LocalServer, inside: Web, name: str, way: str
) -> None:
    bomb, why = BOMBS[name]
    inside.answers["/bomb"] = reply(bomb)
    by_image = asking()
    request = {
        "FILES": asking([bomb], image_url="tensor:0"),
        "IMAGE": replace(by_image, tensors=(*by_image.tensors, octets("IMAGE", bomb))),
        "data URI": asking(image_url=data_uri(bomb)),
        "URL": asking(image_url=inside.url("/bomb")),
    }[way]
    before = peak_megabytes(stub_of(guarded, "prepare"))
    assert refused(wire, request, "image_url: ").startswith(why)
    assert peak_megabytes(stub_of(guarded, "prepare")) - before < 40


@pytest.mark.parametrize("name", ["texts", "Exif segments", "comments"])
def test_long_metadata_costs_little(wire: GrpcWire, guarded: LocalServer, name: str) -> None:
    """Each took Pillow seconds to minutes, or was refused."""
    gif = encoded("GIF")
    colors_end = 13 + (3 << (gif[10] & 7) + 1)
    picture = {
        "texts": text_bomb(100),
        "Exif segments": with_segment(encoded("JPEG"), segment(0xE1, b"Exif\0\0") * 600_000),
        "comments": gif[:colors_end] + b"!\xfe\1a\0" * 1_000_000 + gif[colors_end:],
    }[name]
    before, begun = peak_megabytes(stub_of(guarded, "prepare")), time.monotonic()
    assert wire.send(asking([picture], image_url="tensor:0")).status == "OK"
    assert time.monotonic() - begun < SECONDS / 3
    assert peak_megabytes(stub_of(guarded, "prepare")) - before < 60


OUT = {
    "image_url": (
        "way_out/picture.png",
        "link-picture.png",
        "{secrets}/picture.png",
        "{up}/picture.png",
        "fifo",
        "loop",
    ),
    "loras[0].path": (
        *("way_out/lora.safetensors", "link-lora.safetensors", "{secrets}/lora.safetensors", "{up}/lora.safetensors"),
        *("fifo", "loop", "way_out"),
    ),
    "model_name": ("checkpoint", "way_out/checkpoint", "{secrets}/checkpoint", "way_out", "fifo", "loop", "/", "."),
    "unet_name": (
        "checkpoint",
        "way_out/checkpoint",
        "way_out/checkpoint/unet",
        "link-lora.safetensors",
        "fifo",
        "loop",
    ),
}


@pytest.mark.parametrize(("field", "path"), [(field, path) for field, paths in OUT.items() for path in paths])
def test_no_path_leads_out(wire: GrpcWire, allowed: Path, field: str, path: str) -> None:
    secrets = (allowed / "way_out").resolve()
    value = path.format(secrets=secrets, up=f"{allowed}/../{secrets.name}")
    refused(wire, asking(**naming(field, value)), f"{field}: ")


def test_a_file_outside_is_refused_as_one_that_is_not_there(wire: GrpcWire) -> None:
    said = {
        refused(wire, asking(image_url=f"way_out/{n}.png"), f"image_url: way_out/{n}.png") for n in ("picture", "x")
    }
    assert len(said) == 1


NUMBERS = {"NaN": float("nan"), "Infinity": float("inf"), "1e999": -float("inf"), "10**400": 10**400, "-2": -2}
NUMBER_FIELDS: dict[str, Any] = {
    **{name: lambda n, name=name: {name: n} for name in ("noise_strength", "guidance_scale", "eta", "seed")},
    **{
        name: lambda n, name=name: {name: n}
        for name in ("num_inference_steps", "num_images", "clip_skip", "tile_width")
    },
    "image_size.width": lambda n: {"image_size": {"width": n}},
    "timesteps.array[1]": lambda n: {"timesteps": {"method": "array", "array": [9, n]}},
    "sigmas.array[1]": lambda n: {"sigmas": {"method": "array", "array": [9.0, n]}},
}


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("field", NUMBER_FIELDS)
def test_a_number_that_is_none_is_refused(wire: GrpcWire, field: str, number: str) -> None:
    refused(wire, asking(**NUMBER_FIELDS[field](NUMBERS[number])), field.partition(".")[0])


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999", "10**400"])
def test_a_scale_that_is_no_number_is_refused(wire: GrpcWire, number: str) -> None:
    lora = {"path": "loras/sd15/peft.safetensors", "scale": NUMBERS[number]}
    refused(wire, asking(loras=[lora]), "loras[0].scale: ")


@pytest.mark.parametrize("size", [(14142, 14142), (14142, 64), (10**18, 64), (64, 0)])
def test_a_huge_or_empty_size_is_refused(wire: GrpcWire, size: tuple[int, int]) -> None:
    refused(wire, asking(image_size={"width": size[0], "height": size[1]}), "image_size")


BODY = asking().tensors[0]
WRONG: dict[str, tuple[Tensor, ...]] = {
    "REQUEST is missing": (),
    "REQUEST is empty": (strings("REQUEST", []),),
    "REQUEST twice in one": (Tensor("REQUEST", "BYTES", (2,), BODY.content * 2),),
    "REQUEST [1, 1]": (replace(BODY, shape=(1, 1)),),
    "REQUEST [-1]": (replace(BODY, shape=(-1,)),),
    "REQUEST is a number": (Tensor("REQUEST", "FP32", (1,), bytes(4)),),
    "REQUEST is of no type": (replace(BODY, datatype="TEXT"),),
    "REQUEST is longer than it is": (replace(BODY, content=b"\xff\xff\xff\x7f" + BODY.content[4:]),),
    "REQUEST has no length": (replace(BODY, content=b"{}"),),
    "REQUEST two times": (BODY, BODY),
    "FILES are numbers": (BODY, octets("FILES", encoded())),
    "FILES [1, 1]": (BODY, replace(strings("FILES", [b""]), shape=(1, 1))),
    "FILES claim more": (BODY, replace(strings("FILES", [b""]), shape=(10**12,))),
    "IMAGE is text": (BODY, strings("IMAGE", [encoded()])),
    "IMAGE [8, 8]": (BODY, replace(octets("IMAGE", bytes(64)), shape=(8, 8))),
    "IMAGE claims 10 GB": (BODY, replace(octets("IMAGE", bytes(64)), shape=(10**10,))),
    "IMAGE has floats": (BODY, Tensor("IMAGE", "FP32", (16,), bytes(64))),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_tensor_is_refused_by_its_name(wire: GrpcWire, name: str) -> None:
    assert f"'{name.split()[0]}'" in refused(wire, Hostile(WRONG[name]), "")


def test_files_that_nothing_refers_to_are_ignored(wire: GrpcWire) -> None:
    assert wire.send(asking([b"x"] * 20_000)).status == "OK"
    many = asking([*[b""] * 99_999, encoded()], image_url="tensor:99999")
    assert wire.send(many).status == "OK"


@pytest.mark.parametrize("path", ["/trickle", "/trickling-headers"])
def test_a_url_that_trickles_delays_nobody_else(wire: GrpcWire, inside: Web, path: str) -> None:
    url = inside.url(path)
    fields = [FILE_FIELDS[index % len(FILE_FIELDS)] for index in range(TRICKLES)]
    trickling = [wire.start(asking(**naming(field, f"{url}?{index}"))) for index, field in enumerate(fields)]
    wait_for(lambda: len([seen for seen, _ in inside.seen if seen == path]) == TRICKLES)
    lora = {"path": inside.url("/lora")}
    for _ in range(3):
        assert wire.send(asking([encoded()], image_url="tensor:0", loras=[lora])).status == "OK"
    assert not any(call.done() for call in trickling)
    for field, call in zip(fields, trickling, strict=True):
        found = answer(call)
        assert found.status == "INVALID_ARGUMENT"
        assert found.message.startswith(f"{field}: {url}?")
        assert found.message.endswith(f": not complete after {FETCH_SECONDS} seconds")


def wait_for(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("count", [300, pytest.param(2000, marks=pytest.mark.verify)])
def test_a_storm_of_hostile_requests_does_no_harm(
    wire: GrpcWire, world: Guarded, tiny: Path, count: int, record_property: Any
) -> None:
    processes, before = set(children(world.server.process.pid)), wire.send_all(good(tiny))
    assert {found.status for found in before} == {"OK"}, before
    storm = Storm(world, tiny)
    storm.run(count)
    record_property("statuses", dict(storm.statuses))
    assert not storm.wrong, "\n".join(storm.wrong[:10])
    assert storm.statuses.total() >= count
    assert min(storm.statuses["OK"], storm.statuses["INVALID_ARGUMENT"]) > count // 10
    assert wire.send_all(good(tiny)) == before
    assert set(children(world.server.process.pid)) == processes
    assert world.server.output().count("lorikeet: ready after") == 1
