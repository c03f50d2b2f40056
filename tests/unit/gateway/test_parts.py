"""Uploads in parts, in the ways of both clients; their limits; what they leave behind."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.unit.gateway.conftest import LIMIT
from tests.unit.gateway.served import Served

PARTS = [bytes([i]) * (100_000 + i) for i in range(4)]


@dataclass
class Upload:
    """`base`, `query`: around `/<number>` and `/complete`."""

    gateway: Served
    file_url: str
    base: str
    query: str
    headers: dict[str, str]

    def put(self, number: object, content: Any, **headers: str) -> httpx.Response:
        url = f"{self.base}/{number}{self.query}"
        return self.gateway.client.put(url, content=content, headers={**self.headers, **headers})

    def complete(self, parts: object) -> httpx.Response:
        return self.gateway.client.post(
            f"{self.base}/complete{self.query}", json={"parts": parts}, headers=self.headers
        )

    def content(self) -> bytes:
        reply = self.gateway.client.get(self.file_url)
        assert reply.status_code == 200
        return reply.content


def javascript(gateway: Served) -> Upload:
    addresses = gateway.initiate("initiate-multipart?storage_type=fal-cdn-v3", content_type="a/b", file_name="x.bin")
    base, _, query = addresses["upload_url"].partition("?")
    return Upload(gateway, addresses["file_url"], base, f"?{query}", {})


def python(gateway: Served) -> Upload:
    headers = {**gateway.auth, "Content-Type": "a/b", "X-Fal-File-Name": "x.bin"}
    begun = gateway.client.post("/cdn/files/upload/multipart", headers=headers).json()
    return Upload(
        gateway, begun["access_url"], f"{begun['access_url']}/multipart/{begun['uploadId']}", "", gateway.auth
    )


@pytest.fixture(params=[javascript, python])
def upload(request: pytest.FixtureRequest, gateway: Served) -> Upload:
    begun: Upload = request.param(gateway)
    return begun


def part(number: int, content: bytes) -> dict[str, object]:
    return {"partNumber": number, "etag": hashlib.sha256(content).hexdigest()}


def test_parts_in_any_order_make_the_file(upload: Upload) -> None:
    before = len(upload.gateway.objects())
    numbers = [3, 1, 4, 2]
    with ThreadPoolExecutor(4) as pool:
        replies = list(pool.map(lambda n: upload.put(n, PARTS[n - 1]), numbers))
    assert [reply.status_code for reply in replies] == [200] * 4
    answers = [reply.json() for reply in replies]
    assert [answer["partNumber"] for answer in answers] == numbers
    assert [answer["etag"] for answer in answers] == [reply.headers["etag"] for reply in replies]
    assert upload.gateway.client.get(upload.file_url).status_code == 404
    assert upload.complete(answers).status_code == 200
    assert upload.content() == b"".join(PARTS)
    assert upload.complete(answers[::-1]).status_code == 200  # a client that did not get the first answer
    assert upload.content() == b"".join(PARTS)
    assert len(upload.gateway.objects()) == before + 4


def test_a_part_sent_again_replaces_the_first(upload: Upload) -> None:
    before = len(upload.gateway.objects())
    for content in (b"one", b"two", b"three"):
        assert upload.put(1, content).status_code == 200
    assert len(upload.gateway.objects()) == before + 1
    assert upload.complete([part(1, b"two")]).status_code == 400
    assert upload.complete([part(1, b"three")]).status_code == 200
    assert upload.content() == b"three"


def test_parts_that_are_not_named_are_removed(upload: Upload) -> None:
    before = len(upload.gateway.objects())
    for number in (2, 5, 9):
        upload.put(number, b"%d" % number)
    assert upload.complete([part(9, b"9"), part(2, b"2")]).status_code == 200
    assert upload.content() == b"29"
    assert len(upload.gateway.objects()) == before + 2


def test_a_complete_file_does_not_change(upload: Upload) -> None:
    before = len(upload.gateway.objects())
    upload.put(1, b"one")
    upload.complete([part(1, b"one")])
    assert upload.put(1, b"one").status_code == 200
    assert upload.put(1, b"two").status_code == 400
    assert upload.put(2, b"two").status_code == 400
    assert upload.complete([part(1, b"two")]).status_code == 400
    assert upload.content() == b"one"
    assert len(upload.gateway.objects()) == before + 1


@pytest.mark.parametrize(
    ("parts", "code", "message"),
    [
        ([part(2, b"x")], 400, "Part 2 with this etag is not stored. Send it again."),
        ([part(1, b"y")], 400, "Part 1 with this etag is not stored. Send it again."),
        ([], 422, "at least 1"),
        ("x", 422, "list"),
        ([part(1, b"x"), part(1, b"x")], 422, "a part number occurs twice"),
        ([{"partNumber": 0, "etag": "x"}], 422, "greater than or equal to 1"),
        ([{"partNumber": 10**400, "etag": "x"}], 422, "finite"),
        ([{"partNumber": 1, "etag": "x" * 81}], 422, "at most 80"),
        ([{"partNumber": 1}], 422, "required"),
        ([part(1, b"x")] * 10_001, 422, "at most 10000"),
    ],
)
def test_a_wrong_completion(upload: Upload, parts: object, code: int, message: str) -> None:
    assert upload.put(1, b"x").status_code == 200
    reply = upload.complete(parts)
    assert (reply.status_code, message in reply.text) == (code, True), reply.text[:300]
    assert upload.complete([part(1, b"x")]).status_code == 200


@pytest.mark.parametrize("number", ["0", "10001", "-1", "x", "1.5", "9" * 5000])
def test_a_wrong_part_number(upload: Upload, number: str) -> None:
    assert upload.put(number, b"x").status_code == 422


def test_the_limit_is_that_of_all_parts_together(upload: Upload) -> None:
    before = sum(path.stat().st_size for path in upload.gateway.objects())
    half = bytes(LIMIT // 2)
    assert [upload.put(number, half).status_code for number in (1, 2, 3)] == [200, 200, 413]
    assert upload.put(3, b"x").json()["detail"] == f"The file has more than {LIMIT} bytes. Upload a smaller one."
    assert upload.put(2, half).status_code == 200  # a retry takes the place of the first
    assert sum(path.stat().st_size for path in upload.gateway.objects()) == before + LIMIT
    assert upload.complete([part(1, half), part(2, half)]).status_code == 200


def test_parts_sent_at_the_same_time_do_not_exceed_the_limit(upload: Upload) -> None:
    before = sum(path.stat().st_size for path in upload.gateway.objects())
    content = bytes(LIMIT // 4)
    with ThreadPoolExecutor(10) as pool:
        codes = list(pool.map(lambda number: upload.put(number, content).status_code, range(1, 11)))
    assert sorted(codes) == [200] * 4 + [413] * 6
    assert sum(path.stat().st_size for path in upload.gateway.objects()) == before + LIMIT


def test_a_part_says_its_length_first(upload: Upload) -> None:
    reply = upload.put(1, iter([b"a", b"b"]))
    assert (reply.status_code, reply.json()["detail"]) == (411, "A part of a file needs the header Content-Length.")


def test_parts_belong_to_the_key_that_began_the_upload(gateway: Served) -> None:
    upload = python(gateway)
    theirs = Upload(gateway, upload.file_url, upload.base, "", gateway.other_auth)
    assert theirs.put(1, b"x").status_code == 401
    assert upload.put(1, b"x").status_code == 200
    assert theirs.complete([part(1, b"x")]).status_code == 401
    nobody = Upload(gateway, upload.file_url, upload.base, "", {})
    assert nobody.put(1, b"x").status_code == 401
    other = python(gateway)
    mixed = other.base.replace(other.base.rpartition("/")[2], upload.base.rpartition("/")[2])
    assert Upload(gateway, "", mixed, "", gateway.auth).put(1, b"x").status_code == 401
