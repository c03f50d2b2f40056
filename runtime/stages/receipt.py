"""Makes the receipt of a job from its plan and the stages' report."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from typing import Any

from lorikeet.schema import SENT, AppliedLora, LayerGroup, Receipt, UnmatchedTensors, map_file_refs
from runtime.plan import LoraPlan, Plan
from runtime.stages.report import Report

_PACKAGES = ("lorikeet", "torch", "diffusers", "transformers", "numpy", "pillow")


def make_receipt(plan: Plan, report: Report) -> Receipt:
    scale, tile = plan.checkpoint.vae_scale_factor, plan.vae_tile
    return Receipt(
        request=_request(plan, _without_data),
        seed=plan.seed,
        pictures=_pictures_digest(plan, report),
        files=plan.files,
        loras=[_applied(lora) for lora in plan.loras],
        engine=report.engine,
        vae_tile_width=scale * tile.width if tile else 0,
        vae_tile_height=scale * tile.height if tile else 0,
        versions=_versions(),
    )


def _pictures_digest(plan: Plan, report: Report) -> str:
    """Of the pixels of all pictures: the digest of their tensor, or of the digests if there are several."""
    used = dict.fromkeys(picture.tensor for picture in plan.pictures)
    digests = [report.tensors[name].digest for name in used if name in report.tensors]
    return digests[0] if len(digests) == 1 else _digest(digests)


def _digest(parts: list[str]) -> str:
    return hashlib.blake2b("".join(parts).encode(), digest_size=16).hexdigest() if parts else ""


def published(receipt: Receipt, plan: Plan) -> str:
    """The receipt as JSON for a picture's metadata: without the queries of URLs, which may hold a secret."""
    request = _request(plan, lambda value: _without_data(value.partition("?")[0] if "://" in value else value))
    return receipt.model_copy(update={"request": request}).to_json()


def _request(plan: Plan, write_ref: Callable[[str], str]) -> dict[str, Any]:
    """The request with the seed that was used, and each file reference as `write_ref` writes it."""
    seeded = plan.request.model_copy(update={"seed": plan.seed})
    request: dict[str, Any] = json.loads(map_file_refs(seeded, lambda _, value: write_ref(value)).to_json())
    return request


def _without_data(value: str) -> str:
    """The reference, or `SENT` for a file inside the request: the receipt does not depend on how a file was sent."""
    return SENT if value[:7].lower().startswith(("data:", "tensor:")) else value


def _applied(lora: LoraPlan) -> AppliedLora:
    receipt = lora.receipt
    groups = [
        LayerGroup(
            kind=group.kind,
            rank=group.rank,
            alpha=group.alpha,
            effective_scale=lora.scale * group.multiplier,
            layers=group.layers,
        )
        for group in receipt.groups
    ]
    return AppliedLora(
        field=lora.field,
        digest=lora.digest,
        scale=lora.scale,
        tensors=receipt.tensors,
        matched=receipt.matched,
        layers=receipt.layers,
        groups=groups,
        embeddings=list(receipt.embeddings),
        unmatched=[
            UnmatchedTensors(kind=part.kind, count=part.count, names=list(part.names)) for part in receipt.unmatched
        ],
    )


@cache
def _versions() -> dict[str, str]:
    return {name: version(name) for name in _PACKAGES} | {"python": platform.python_version()}
