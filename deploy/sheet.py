"""A contact sheet: pictures with captions in rows, as one picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

GAP = 8
LINE = 18
FONT_SIZE = 13
FONT = ImageFont.load_default(FONT_SIZE)
INK = (40, 40, 46)


@dataclass(frozen=True)
class Row:
    """A `title` over (caption, picture) pairs; the pictures of a sheet have one size."""

    title: str
    pictures: Sequence[tuple[str, Image.Image]]


def sheet(rows: Sequence[Row]) -> Image.Image:
    """The rows from top to bottom on white, RGB. A title that is too long is cut off."""
    columns = max(len(row.pictures) for row in rows)
    width = GAP + columns * (rows[0].pictures[0][1].width + GAP)
    whole = Image.new("RGB", (width, GAP + sum(map(_height, rows))), "white")
    top = GAP
    for row in rows:
        _draw_row(row, whole, top)
        top += _height(row)
    return whole


def _height(row: Row) -> int:
    lines = max(_wrapped(caption, picture.width).count("\n") + 1 for caption, picture in row.pictures)
    return (LINE if row.title else 0) + row.pictures[0][1].height + lines * LINE + GAP


def _draw_row(row: Row, whole: Image.Image, top: int) -> None:
    draw = ImageDraw.Draw(whole)
    if row.title:
        draw.text((GAP, top), row.title, INK, FONT)
        top += LINE
    left = GAP
    for caption, picture in row.pictures:
        whole.paste(picture, (left, top))
        draw.text((left, top + picture.height + 1), _wrapped(caption, picture.width), INK, FONT)
        left += picture.width + GAP


def _wrapped(caption: str, width: int) -> str:
    """The caption in lines of at most `width` pixels, broken between words; a longer word stays whole."""
    lines: list[str] = []
    for word in caption.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and FONT.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return "\n".join(lines)
