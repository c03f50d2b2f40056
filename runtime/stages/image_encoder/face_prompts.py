"""Finds the face in each picture of the adapters that take one, and embeds it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from runtime.faces.face import SIDE, Face, FaceError, FaceNetworks, Pixels
from runtime.faces.geometry import align
from runtime.faces.process import FaceProcess
from runtime.files.stored_file import FileChangedError, StoredFile
from runtime.plan import IpAdapterPlan, Plan
from runtime.stage_errors import InvalidArgument
from runtime.stages.call import Call

CheckCancelled = Callable[[], None]
_CROP_SIDE = 2 * SIDE  # of the face that CLIP's image encoder sees, as in the scripts of FaceID's authors


@dataclass(frozen=True, eq=False)
class FacePrompt:
    """embeddings: [F] of each branch, first the negative one if there are two. crop [224, 224, 3]: the aligned face."""

    embeddings: tuple[torch.Tensor, ...]
    crop: Pixels


class FacePrompts:
    """One request at a time."""

    def __init__(self) -> None:
        self._process = FaceProcess(torch.get_num_threads())

    def make(self, plan: Plan, call: Call, check_cancelled: CheckCancelled) -> dict[str, FacePrompt]:
        """By the field of the picture. Raises InvalidArgument, and what `check_cancelled` raises."""
        found: dict[str, FacePrompt] = {}
        for index, adapter in enumerate(plan.ip_adapters):
            if (pack := adapter.face_pack) is None:
                continue
            try:
                files = [StoredFile(file.path, file.digest, file.fingerprint) for file in pack.files]
                self._process.load(files, check_cancelled)
                generator = torch.Generator("cpu").manual_seed(plan.seed)
                for field in adapter.images:
                    picture = plan.picture(field)
                    assert picture is not None
                    pixels = np.array(picture.pixels(call.inputs))
                    found[field] = _prompt(plan, index, field, pixels, self._process, generator, check_cancelled)
            except (FaceError, FileChangedError) as error:
                raise InvalidArgument(pack.field, str(error)) from error
        return found

    def close(self) -> None:
        self._process.close()


def _prompt(
    plan: Plan,
    index: int,
    field: str,
    pixels: Pixels,
    networks: FaceNetworks,
    generator: torch.Generator,
    check_cancelled: CheckCancelled,
) -> FacePrompt:
    adapter = plan.ip_adapters[index]
    face = _largest(field, networks.detect(pixels, check_cancelled))
    try:
        small, crop = (align(pixels, face.points, side) for side in (SIDE, _CROP_SIDE))
    except ValueError as error:
        raise InvalidArgument(field, f"no face was found in the picture: {error}") from error
    embedding = _embedded(adapter, small, networks, check_cancelled)
    if not plan.guided:
        return FacePrompt((embedding,), crop)
    factor = plan.request.ip_adapter[index].unconditional_noising_factor
    negative = torch.zeros_like(embedding)
    if factor:
        noise = factor * torch.randn(small.shape, generator=generator).numpy()
        noised = np.rint(255 * np.clip(small / 255 + noise, 0, 1)).astype(np.uint8)
        negative = _embedded(adapter, noised, networks, check_cancelled)
    return FacePrompt((negative, embedding), crop)


def _largest(field: str, faces: Sequence[Face]) -> Face:
    if not faces:
        raise InvalidArgument(
            field, "no face was found in the picture: send one with a face that is upright, in focus and not cut off"
        )
    return max(faces, key=lambda face: face.area)


def _embedded(
    adapter: IpAdapterPlan, face: Pixels, networks: FaceNetworks, check_cancelled: CheckCancelled
) -> torch.Tensor:
    """FaceID takes the embedding of length 1, InstantID takes it as it is; both were trained so."""
    embedding = torch.from_numpy(networks.embed(face, check_cancelled))
    expected = adapter.projection.config["image_embed_dim" if adapter.kind == "plus" else "face_embed_dim"]
    if len(embedding) != expected:
        raise FaceError(
            f"its ArcFace network gives {len(embedding)} values, the adapter takes {expected}: use the pack that the "
            "adapter was made for (buffalo_l for FaceID, antelopev2 for InstantID)"
        )
    return embedding if adapter.kind == "plus" else torch.nn.functional.normalize(embedding, dim=0)
