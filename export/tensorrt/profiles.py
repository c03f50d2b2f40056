"""The optimization profiles of plans: the sizes of calls, read from a settings file, and the shapes that follow."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from export.errors import ExportError
from runtime.artifacts.graph_call import GraphCall, axis_size
from runtime.artifacts.manifest import Manifest
from runtime.artifacts.plan_manifest import Profile, Shape
from runtime.networks.architecture import Architecture, NetworkKind

Profiles = dict[NetworkKind, Profile]
_FOLDER = Path(__file__).resolve().parent / "profiles"
_PROFILES: TypeAdapter[Profiles] = TypeAdapter(Profiles)


def default_profiles(architectures: Collection[Architecture]) -> Path:
    """The file for SDXL, whose pictures have 1024 x 1024 pixels, or for the others, which have 512 x 512."""
    is_sdxl = any(found.options.get("addition_embed_type") == "text_time" for found in architectures)
    return _FOLDER / ("1024.json" if is_sdxl else "512.json")


def read_profiles(path: Path) -> Profiles:
    """Raises ExportError."""
    try:
        return _PROFILES.validate_json(path.read_bytes())
    except OSError as error:
        raise ExportError(f"{path}: it cannot be read ({error.strerror})") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise ExportError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def input_shapes(
    manifest: Manifest, architecture: Architecture, profile: Profile
) -> Mapping[str, tuple[Shape, Shape, Shape]]:
    """The smallest, typical and largest shape of each input of a graph."""
    calls = [call_of(profile, place) for place in range(3)]

    def shape(axes: tuple[int | str, ...], place: int) -> Shape:
        return tuple(_size(axis, architecture, calls[place], place) for axis in axes)

    return {
        tensor.name: (shape(tensor.axes, 0), shape(tensor.axes, 1), shape(tensor.axes, 2)) for tensor in manifest.inputs
    }


def call_of(profile: Profile, place: int) -> GraphCall:
    """The call with the smallest (`place` 0), the typical (1) or the largest (2) sizes."""
    return GraphCall(
        *(profile.rows[place], profile.height[place], profile.width[place], profile.text_chunks[place]),
        *(profile.adapters[place], profile.ip_tokens[place], profile.rank[place]),
    )


def _size(axis: int | str, architecture: Architecture, call: GraphCall, place: int) -> int:
    """An adapter without a mask has a mask of one query, so this is the smallest and the typical size.

    Likewise, a call without ControlNets has residuals of size 1, and they need no adapters to be larger.
    """
    if isinstance(axis, str) and axis.startswith("residual_") and place != 1:
        return axis_size(axis, architecture, call._replace(adapters=1)) if place == 2 else 1
    is_mask = isinstance(axis, str) and axis.startswith("ip_queries")
    return 1 if is_mask and place < 2 else axis_size(axis, architecture, call)
