"""Metrics of a picture that need no model: colour and shape of its object, background and PSNR."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import Image

from deploy.demo_model.world.canvas import SIDE
from deploy.demo_model.world.colours import NAMED
from deploy.demo_model.world.random_scenes import clear_colours
from deploy.demo_model.world.scene import Scene, Thing, draw
from deploy.demo_model.world.things import KINDS

Pixels = npt.NDArray[np.float64]  # [H, W, 3], 0 to 255
Mask = npt.NDArray[np.bool_]  # [H, W]

BORDER = 5  # pixels at the left and right side that contain no object
DIFFERENT = 75.0  # RGB distance from the row's background; the tones of a pattern differ by less
SMALLEST = 100  # pixels; less is no object
SAME_BACKGROUND = 60.0  # in RGB, between the means
FRAME = 64  # side of the frame in which outlines are compared
REACH = 2.0  # of that frame, in standard deviations of the object's pixels


def background_rows(picture: Image.Image) -> Pixels:
    """The background's colour in each row [H, 3]: the median of both side borders."""
    pixels = _pixels(picture)
    rows: Pixels = np.median(np.concatenate([pixels[:, :BORDER], pixels[:, -BORDER:]], axis=1), axis=1)
    return rows


def same_background(picture: Image.Image, other: Image.Image) -> bool:
    """Whether two pictures have the same background colours: in the mean of the upper and of the lower third."""
    third = SIDE // 3
    difference = background_rows(picture) - background_rows(other)
    return all(
        float(np.linalg.norm(part.mean(axis=0))) < SAME_BACKGROUND for part in (difference[:third], difference[-third:])
    )


def object_mask(picture: Image.Image) -> Mask:
    """The pixels [H, W] that differ from their row's background by more than `DIFFERENT`."""
    away = np.linalg.norm(_pixels(picture) - background_rows(picture)[:, None], axis=2)
    mask: Mask = away > DIFFERENT
    return mask


def object_colour(picture: Image.Image) -> str:
    """The name of the colour that most pixels of the object are nearest to, or "" if there is no object."""
    mask = object_mask(picture)
    if mask.sum() < SMALLEST:
        return ""
    named = np.array(list(NAMED.values()), dtype=np.float64)
    nearest = np.linalg.norm(_pixels(picture)[mask][:, None] - named, axis=2).argmin(axis=1)
    return list(NAMED)[int(np.bincount(nearest, minlength=len(named)).argmax())]


def object_shape(picture: Image.Image) -> str:
    """The kind whose outline overlaps best after both are centred and scaled; "" if there is no object."""
    mask = object_mask(picture)
    if mask.sum() < SMALLEST:
        return ""
    kinds, outlines = _outlines()
    outline = _framed(mask).ravel()
    overlap = (outlines & outline).sum(axis=1) / (outlines | outline).sum(axis=1)
    return kinds[int(overlap.argmax())]


def psnr(picture: Image.Image, other: Image.Image) -> float:
    """The peak signal-to-noise ratio in dB; infinite for equal pictures."""
    error = float(np.square(_pixels(picture) - _pixels(other)).mean())
    return float("inf") if error == 0 else 10 * float(np.log10(255**2 / error))


def _pixels(picture: Image.Image) -> Pixels:
    return np.asarray(picture.convert("RGB"), dtype=np.float64)


@cache
def _outlines() -> tuple[list[str], Mask]:
    """Kinds and their outlines [n, FRAME * FRAME], on every background: a green leaf is invisible on green."""
    drawn = [
        (kind, object_mask(draw(Scene("plain", background, (Thing(kind, colour),)))))
        for kind in KINDS
        for background in NAMED
        for colour in clear_colours("plain", background)
    ]
    return [kind for kind, _ in drawn], np.stack([_framed(mask).ravel() for _, mask in drawn])


def _framed(mask: Mask) -> Mask:
    """The object [FRAME, FRAME], centred on its centre of mass and scaled to a fixed spread."""
    rows, columns = np.nonzero(mask)
    spread = np.sqrt(rows.var() + columns.var())
    steps = np.linspace(-REACH, REACH, FRAME) * spread
    down = np.clip(np.rint(rows.mean() + steps), 0, mask.shape[0] - 1).astype(int)
    across = np.clip(np.rint(columns.mean() + steps), 0, mask.shape[1] - 1).astype(int)
    framed: Mask = mask[np.ix_(down, across)]
    return framed
