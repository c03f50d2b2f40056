"""Parity with diffusers through the running server: the same weights, seed and schedule give the same latents.

Each row changes one thing of a case; and the reference itself must move by ten times the tolerance when that one
thing is taken back, so that a field that the server ignores cannot pass.

`make verify` runs each row of a table on every kind of checkpoint, `make test` on one kind, in turn: so each row and
each kind is in both.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import cache, reduce
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from _pytest.mark import ParameterSet
from diffusers import UNet2DConditionModel
from numpy.typing import NDArray
from PIL import Image

from lorikeet import Client, Job
from tests.reference import (
    ReferenceControlNet,
    ReferenceEmbedding,
    ReferenceIpAdapter,
    ReferenceLora,
    ReferenceRequest,
    ReferenceTiles,
    reference,
    relative_error,
)
from tests.reference.kept import kept

TOLERANCE = 1e-3  # of the latents' standard deviation
AT_ONCE = 8  # of 16 that the server runs at a time: more would make no step quicker
KINDS = ("sd15", "sd2", "sdxl")
Latents = NDArray[np.float32]
Report = Callable[[str, object], None]


@dataclass(frozen=True)
class Case:
    """What the oracle is asked, and what of the question the server is told in other words.

    `unet` is a UNet's folder in place of the checkpoint's own; `served` are fields of the API that mean the same.
    """

    request: ReferenceRequest
    unet: Path | None = None
    served: dict[str, Any] = field(default_factory=dict)


Change = Callable[[Case], Case]


@cache
def picture(seed: int = 0) -> Image.Image:
    """A picture with large and small shapes, 96x64."""
    noise = np.random.default_rng(seed).integers(0, 256, (8, 12, 3), np.uint8)
    return Image.fromarray(noise).resize((96, 64), Image.Resampling.BICUBIC)


def base(tiny: Path, kind: str) -> Case:
    """The case that all rows start from."""
    request = ReferenceRequest(
        model=tiny / kind,
        prompt="a red fish under the sun",
        negative_prompt="a boat",
        image=picture(),
        noise_strength=0.6,
        seed=7,
        num_inference_steps=5,
        guidance_scale=6.0,
        scheduler="Euler",
    )
    return Case(request)


def fields(**values: Any) -> Change:
    """Other values of the request's fields."""
    return lambda case: replace(case, request=replace(case.request, **values))


def loras(*names: str, scale: float = 0.8) -> Change:
    """Files of peft's and of Kohya's names, for all networks: the first at `scale`, the second at half of it."""

    def change(case: Case) -> Case:
        model = case.request.model
        folder = model.parent / "loras" / model.name
        worn = [ReferenceLora(folder / f"{name}.safetensors", scale / (i + 1)) for i, name in enumerate(names)]
        return replace(case, request=replace(case.request, loras=tuple(worn)))

    return change


TEXT_TO_IMAGE = fields(image=None, width=64, height=96)


@dataclass(frozen=True, eq=False)
class Row:
    """A case of one kind of checkpoint after `changes`. Rows are equal only to themselves."""

    kind: str
    changes: tuple[Change, ...]

    def case(self, tiny: Path, changes: int | None = None) -> Case:
        """The case after the first `changes`, or after all of them."""
        return reduce(lambda case, change: change(case), self.changes[:changes], base(tiny, self.kind))


def rows(table: Mapping[str, tuple[Change, ...]], shift: int = 0, on_all: Sequence[str] = ()) -> list[ParameterSet]:
    """Each row of `table` on each kind of checkpoint.

    `make test` runs the row at place i on the kind at place i + `shift`, and those named in `on_all` on all kinds.
    """
    found = []
    for place, (name, changes) in enumerate(table.items(), shift):
        chosen = KINDS if name in on_all else (KINDS[place % len(KINDS)],)
        found += [row(f"{name}-{kind}", kind, changes, verify=kind not in chosen) for kind in KINDS]
    return found


def row(name: str, kind: str, changes: tuple[Change, ...], verify: bool = False) -> ParameterSet:
    """One row as a parameter of a test; with `verify`, `make verify` alone runs it."""
    return pytest.param(Row(kind, changes), id=name, marks=[pytest.mark.verify] if verify else [])


def check(answers: Answers, row: Row, record_property: Report) -> None:
    """The server's latents equal the reference's, which the last change moves.

    The figure of each row is in the report that `make test ARGS=--junitxml=out/tests.xml` writes.
    """
    tiny = answers.tiny
    expected, before = expect(tiny, row.case(tiny)), expect(tiny, row.case(tiny, len(row.changes) - 1))
    error = relative_error(answers.latents(row), expected)
    record_property("relative_error", error)
    assert error < TOLERANCE
    assert moves(before, expected), "the last change does not move the reference: this row proves nothing"


def moves(before: Latents, after: Latents) -> bool:
    """Whether two references differ by ten times the tolerance; pictures of another number or size do."""
    if before.shape[2:] != after.shape[2:]:
        return True
    if before.shape != after.shape:
        # More pictures: the further ones must differ from the first.
        return relative_error(after[1:], after[:1]) > 10 * TOLERANCE
    return relative_error(before, after) > 10 * TOLERANCE


def selected(request: pytest.FixtureRequest, name: str) -> list[Any]:
    """The values of a parameter in the tests that the run has selected."""
    found = (getattr(item, "callspec", None) for item in request.session.items)
    return [spec.params[name] for spec in found if spec and name in spec.params]


class Answers:
    """The server's answers to rows, all asked for at once, in order, `AT_ONCE` in flight.

    The server is at work on the next rows while the reference of this one is computed.
    """

    def __init__(self, client: Client, tiny: Path, rows: Iterable[Row]) -> None:
        self.tiny = tiny
        self._pool = ThreadPoolExecutor(AT_ONCE)
        self._jobs = {row: self._pool.submit(_ask, client, row.case(tiny)) for row in rows}

    def latents(self, row: Row) -> Latents:
        """Wait for the row's latents."""
        return self._jobs[row].result()

    def close(self) -> None:
        """Ask for no more rows."""
        self._pool.shutdown(cancel_futures=True)


def _ask(client: Client, case: Case) -> Latents:
    result = submit(client, case).result()
    assert result.latents is not None
    assert len(result.images) == len(result.latents)
    return result.latents


def expect(tiny: Path, case: Case) -> Latents:
    """The reference's latents, kept on disk: rows and runs share them."""
    return kept(tiny, (case.request, case.unet), lambda: _reference(case))


def _reference(case: Case) -> Latents:
    return reference(case.request, _unet(case.unet) if case.unet else None).latents


@cache
def _unet(folder: Path) -> torch.nn.Module:
    unet: torch.nn.Module = UNet2DConditionModel.from_pretrained(folder)
    return unet


def submit(client: Client, case: Case) -> Job:
    """Ask the server."""
    request = case.request
    asked: dict[str, Any] = {
        "model_name": str(request.model),
        "prompt": request.prompt,
        "negative_prompt": request.negative_prompt,
        "prompt_weighting": bool(request.parts),
        "image": request.image,
        "noise_strength": request.noise_strength,
        "loras": [{"path": str(lora.path), "scale": lora.scale} for lora in request.loras],
        "embeddings": [_embedding(embedding) for embedding in request.embeddings],
        "seed": request.seed,
        "num_inference_steps": request.num_inference_steps,
        "guidance_scale": request.guidance_scale,
        "scheduler": request.scheduler,
        "num_images": request.num_images,
        "clip_skip": request.clip_skip,
        "eta": request.eta,
        "timesteps": _schedule(request.timesteps),
        "sigmas": _schedule(request.sigmas),
        "prediction_type": request.prediction_type,
        "rescale_betas_snr_zero": request.rescale_betas_snr_zero,
        "image_size": {"width": request.width, "height": request.height} if request.image is None else None,
        "unet_name": str(case.unet) if case.unet else None,
        "controlnets": [_controlnet(controlnet) for controlnet in request.controlnets],
        "ip_adapter": [_ip_adapter(adapter) for adapter in request.ip_adapters],
        "controlnet_guess_mode": request.controlnet_guess_mode,
        "debug_latents": True,
        **_tiles(request.tiles),
    }
    return client.submit(**asked | case.served)


def _controlnet(controlnet: ReferenceControlNet) -> dict[str, Any]:
    return {
        "path": str(controlnet.served or controlnet.path),
        "image_url": controlnet.image,
        "mask_url": controlnet.mask,
        "conditioning_scale": controlnet.conditioning_scale,
        "start_percentage": controlnet.start,
        "end_percentage": controlnet.end,
        "ip_adapter_index": controlnet.ip_adapter,
    }


def _ip_adapter(adapter: ReferenceIpAdapter) -> dict[str, Any]:
    first, *others = adapter.images
    return {
        "path": str(adapter.path.parent),
        "weight_name": adapter.path.name,
        "ip_adapter_image_url": [first, *others] if others else first,
        "ip_adapter_mask_url": adapter.mask,
        **({"scale_json": json.loads(adapter.scale)} if isinstance(adapter.scale, str) else {"scale": adapter.scale}),
        "unconditional_noising_factor": adapter.noising_factor,
        "insight_face_model_path": str(adapter.face_pack) if adapter.face_pack else None,
        "image_projection_shortcut": adapter.shortcut,
    }


def _embedding(embedding: ReferenceEmbedding) -> dict[str, Any]:
    """With its tokens, unless they are those of an unset field."""
    numbered = tuple(f"<s{number}>" for number in range(len(embedding.tokens)))
    tokens = {} if embedding.tokens == numbered else {"tokens": list(embedding.tokens)}
    return {"path": str(embedding.path), **tokens}


def _schedule(steps: Sequence[float]) -> dict[str, Any]:
    return {"method": "array", "array": list(steps)} if steps else {"method": "default"}


def _tiles(tiles: ReferenceTiles | None) -> dict[str, int]:
    given = {f"tile_{name}": value for name, value in asdict(tiles).items()} if tiles else {}
    return {name: value for name, value in given.items() if value is not None}
