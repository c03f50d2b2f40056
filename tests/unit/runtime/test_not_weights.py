"""The names of files that are no weights, from their beginnings, and the messages of servers' answers."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.numpy import save

from lorikeet.net.answer_text import answer_text, error_text
from lorikeet.net.url import parse_url
from runtime.files.not_weights import describe_not_picture, describe_not_weights, read_head
from runtime.files.page_hint import page_hint
from runtime.files.safetensors_file import WeightFileError, read_header
from runtime.files.weight_check import check_checkpoint, check_lora

PAGE = "a web page (sign in?)"
POINTER = "a git-LFS pointer: run `git lfs pull`, or download the file itself"
TEXTS = {
    b"<!DOCTYPE html><html><head><title>Sign in</title></head></html>": PAGE,
    b"\n\n<!doctype HTML>\n<html lang=en>": PAGE,
    b"\xef\xbb\xbf<html>": PAGE,
    b"<HTML><HEAD>": PAGE,
    b"<!-- saved --><div>": PAGE,
    b"<script>location='/login'</script>": PAGE,
    b"<head><title>302 Found</title></head>": PAGE,
    b"<html>\xd1\xee\xf8\xeb": PAGE,  # windows-1251
    b"<?xml version='1.0'?>\n<!DOCTYPE html PUBLIC '-//W3C//DTD XHTML 1.0'>\n<html>": PAGE,
    b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>": "an XML document",
    b"<svg xmlns='http://www.w3.org/2000/svg'/>": "an SVG drawing: convert it to PNG or JPEG",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 1\n": POINTER,
    b"version https://hawser.github.com/spec/v1\noid sha256:" + b"a" * 64: POINTER,
    b'{"error": "Unauthorized"}': "a JSON document",
    b' [\n{"detail": "': "a JSON document",
    b"Entry not found": "a text",
    "見つかりません".encode(): "a text",
    "é".encode() * 2047 + "é".encode()[:1]: "a text",  # cut in a character
    b"": "empty",
    b" \n": "an empty text",
    b"%PDF-1.7\n": "a PDF document",
    b"\x1f\x8b\x08\0": "gzip-compressed: unpack it first",
    b"Rar!\x1a\x07\x01\0": "a RAR archive: unpack it first",
    b"7z\xbc\xaf\x27\x1c\0": "a 7z archive: unpack it first",
    b"GGUF\x03\0\0\0": "a GGUF file, a format that is not served",
    b"\x80\x02}q\0": "a pickle (.ckpt, .pt, .bin)",
}


@pytest.mark.parametrize("head", TEXTS)
def test_a_file_is_named_by_its_beginning(head: bytes, tmp_path: Path) -> None:
    assert describe_not_weights(head) == describe_not_picture(head) == TEXTS[head]
    path = tmp_path / "a.safetensors"
    path.write_bytes(head)
    with pytest.raises(WeightFileError) as caught:
        read_header(path)
    assert str(caught.value) == f"not a readable .safetensors file: it is {TEXTS[head]}"


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP", "GIF", "TIFF"])
def test_a_picture_is_no_weights(image_format: str) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64)).save(buffer, image_format)
    assert describe_not_weights(buffer.getvalue()) == f"a {image_format} picture"
    assert describe_not_picture(buffer.getvalue()) is None


@pytest.mark.parametrize("size", [0x7B, 0x3C, 0x80, 0x4B50, 0x685A42, 0x8B1F, 0x0A, 0x20])
def test_weights_are_not_misread_whatever_their_headers_length(size: int) -> None:
    """The length comes first: "{", "<", a pickle's or an archive's first bytes."""
    head = size.to_bytes(8, "little") + b'{"a":'
    assert describe_not_weights(head) is None
    assert describe_not_picture(head) == "a .safetensors file"


@pytest.mark.parametrize("head", [b"\0" * 100, b"\x93NUMPY\x01\0", bytes(range(256)), b"\xff" * 50, b"BM\x36\0\0\0"])
def test_other_data_has_no_name(head: bytes) -> None:
    assert describe_not_weights(head) is None


@given(st.binary(max_size=100))
def test_any_bytes_have_a_name_or_none(head: bytes) -> None:
    for describe in (describe_not_weights, describe_not_picture, answer_text, error_text):
        what = describe(head)
        assert what is None or (what.isprintable() and len(what) <= 160)


def _saved(tensors: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    return buffer.getvalue()


def _zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("readme.txt", "hello")
    return buffer.getvalue()


WEIGHTS = save({"a": np.zeros(3, np.float32)})
CHECKED = {
    "safetensors": (WEIGHTS, None, None),
    "torch.save": (_saved({"a": torch.zeros(3)}), None, "it is a pickle"),
    "torch.save without tensors": (_saved({}), "it holds no tensors", "it is a pickle"),
    "a zip archive": (_zipped(), "a zip archive that torch.save did not write", "it is a pickle"),
    "truncated": (WEIGHTS[:-1], "not a readable .safetensors file (", "not a readable .safetensors file ("),
    "a page": (b"<html>", PAGE, PAGE),
}


@pytest.mark.parametrize("name", CHECKED)
def test_a_file_is_checked_for_its_field(name: str, tmp_path: Path) -> None:
    content, for_lora, for_checkpoint = CHECKED[name]
    path = tmp_path / "a"
    path.write_bytes(content)
    for check, reason in ((check_lora, for_lora), (check_checkpoint, for_checkpoint)):
        if reason is None:
            check(path)
        else:
            with pytest.raises(WeightFileError) as caught:
                check(path)
            assert reason in str(caught.value)


def test_the_head_is_the_beginning(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 10_000)
    assert read_head(tmp_path / "a") == b"x" * 4096


MESSAGES = {
    b"<html><head>\n<title>\n Sign in &middot; Hub </title>": "Sign in \u00b7 Hub",
    b'{"error":"Unauthorized","message":"Log in to download it"}': "Unauthorized: Log in to download it",
    b'{"error": {"code": 5, "message": "quota \\"x\\" \\u00e9"}}': 'quota "x" \u00e9',
    b'[{"detail": "\\ud800 half"}]': "half",
    b'{"message": "' + b"x" * 4000: "x" * 157 + "...",
    b'{"other": "x"}': None,
    b"<?xml?><Error><Code>AccessDenied</Code><Message>It has expired</Message>": "AccessDenied: It has expired",
    b"plain text": None,
    b"\0\1": None,
}


@pytest.mark.parametrize("head", MESSAGES)
def test_the_message_of_an_answer(head: bytes) -> None:
    assert answer_text(head) == MESSAGES[head]


HINTS = {
    "https://huggingface.co/o/n/blob/main/x.safetensors": "use /resolve/ in place of /blob/",
    "https://mirror.example:8080/o/n/blob/main/a/x.safetensors": "use /resolve/ in place of /blob/",
    "https://github.com/o/n/blob/main/x.png": "use /raw/ in place of /blob/",
    "https://civitai.com/models/4201?modelVersionId=130072": "https://civitai.com/api/download/models/VERSION",
    "https://huggingface.co/owner/name": "write its Hub id, owner/name",
    "https://huggingface.co/o/n/tree/main": "use the download link of a file",
}


@pytest.mark.parametrize("url", HINTS)
def test_the_address_of_a_page_says_what_to_do(url: str) -> None:
    assert HINTS[url] in (page_hint(parse_url(url)) or "")


@pytest.mark.parametrize(
    "url", ["https://h/", "https://h/blob", "https://huggingface.co/o/n/resolve/main/x", "https://h/a/b"]
)
def test_other_addresses_say_nothing(url: str) -> None:
    assert page_hint(parse_url(url)) is None
