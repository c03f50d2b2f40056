"""Names what a file is that holds no weights: a web page, a git-LFS pointer, a text, an archive, a picture."""

from __future__ import annotations

import re
from pathlib import Path

from lorikeet.net.answer_text import HEAD_BYTES, decoded_text

WEB_PAGE = "a web page (sign in?)"
GIT_LFS_POINTER = "a git-LFS pointer: run `git lfs pull`, or download the file itself"

# The beginnings of git-LFS pointers; the second one is that of the program's first versions.
_POINTERS = (b"version https://git-lfs.github.com/spec/", b"version https://hawser.github.com/spec/")
# What the WHATWG's MIME sniffing takes for HTML, and the tags that pages without a head begin with.
_HTML = re.compile(
    rb"(\xef\xbb\xbf)?\s*<(!--|(!doctype html|html|head|script|iframe|h1|div|font|table|a|style|title|b|body|br|p|meta|"
    rb"link|center)[\s/>])",
    re.IGNORECASE,
)
_PICTURES = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
)
_FORMATS = (
    (b"PK\x03\x04", "a zip archive or a file of torch.save (.ckpt, .pt, .bin)"),
    (b"\x1f\x8b", "gzip-compressed: unpack it first"),
    (b"BZh", "bzip2-compressed: unpack it first"),
    (b"\xfd7zXZ\0", "xz-compressed: unpack it first"),
    (b"\x28\xb5\x2f\xfd", "zstd-compressed: unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it first"),
    (b"Rar!\x1a\x07", "a RAR archive: unpack it first"),
    (b"GGUF", "a GGUF file, a format that is not served"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file (Keras), a format that is not served"),
    (b"%PDF-", "a PDF document"),
)


def describe_not_weights(head: bytes) -> str | None:
    """What a file is, from its first 4096 bytes (or all, if it has fewer); None: it may hold weights, or is unknown.

    The text continues a sentence: "it is …". It repeats no part of the file: a local text may be private.
    """
    if _is_safetensors(head):
        return None
    if picture := _picture_format(head):
        return f"a {picture} picture"
    return _archive_format(head) or describe_text(head)


def describe_not_picture(head: bytes) -> str | None:
    """As `describe_not_weights`, for a file that must be a picture. None: it may be one, or is unknown."""
    if _is_safetensors(head):
        return "a .safetensors file"
    return None if _picture_format(head) else _archive_format(head) or describe_text(head)


def _is_safetensors(head: bytes) -> bool:
    """Whether a file begins with the length of a header below 4 GB, and with JSON."""
    return head[4:9] == b"\0\0\0\0{"


def _picture_format(head: bytes) -> str | None:
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    return next((name for start, name in _PICTURES if head.startswith(start)), None)


def _archive_format(head: bytes) -> str | None:
    for start, what in _FORMATS:
        if head.startswith(start):
            return what
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "a pickle (.ckpt, .pt, .bin)"
    return None


def describe_text(head: bytes) -> str | None:
    """As `describe_not_weights`, for files of text; None: the file is binary."""
    if not head.strip():
        return "empty" if not head else "an empty text"
    if head.startswith(_POINTERS):
        return GIT_LFS_POINTER
    if _HTML.match(head):
        return WEB_PAGE
    text = decoded_text(head)
    if text is None:
        return None
    if text.startswith("<"):
        if "<svg" in text:
            return "an SVG drawing: convert it to PNG or JPEG"
        return WEB_PAGE if "<html" in text.lower() else "an XML document"
    return "a JSON document" if text.startswith(("{", "[")) else "a text"


def read_head(path: Path) -> bytes:
    """The bytes of a file that `describe_not_weights` needs. Raises OSError."""
    with path.open("rb") as file:
        return file.read(HEAD_BYTES)
