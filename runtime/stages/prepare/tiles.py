"""The tiles of a request: the UNet's windows (MultiDiffusion), and the tiles of the VAE."""

from __future__ import annotations

from lorikeet.schema import ImageToImageInput
from runtime.checkpoints.checkpoint import Checkpoint
from runtime.stages.prepare.size import Size
from runtime.tile_plan import UNetTiles, VaeTile

_MOST_STRIDE = 2048  # pixels, of a stride that the request does not give
_OVERLAP = 4  # the VAE's tiles overlap by one part in so many, and the overlap is a whole number of latents


def resolve_unet(request: ImageToImageInput, size: Size, checkpoint: Checkpoint) -> UNetTiles | None:
    """None when a tile covers the picture. A side that is not a multiple of the VAE's scale factor is rounded down."""
    scale = checkpoint.vae_scale_factor
    height, width = size.padded_height // scale, size.padded_width // scale
    tile_height = height if request.tile_height >= size.height else _latents(request.tile_height, scale)
    tile_width = width if request.tile_width >= size.width else _latents(request.tile_width, scale)
    if (tile_height, tile_width) == (height, width):
        return None
    return UNetTiles(
        height=tile_height,
        width=tile_width,
        stride_height=min(_latents(_stride(request, "height"), scale), tile_height),
        stride_width=min(_latents(_stride(request, "width"), scale), tile_width),
    )


def resolve_vae(request: ImageToImageInput, size: Size, checkpoint: Checkpoint, above: int) -> VaeTile | None:
    """The request's tile; half of `above` pixels along a side on which a tile would be longer than `above`.

    None when the tile covers a picture that has no such side.
    """
    covers = request.tile_height >= size.height and request.tile_width >= size.width
    if covers and max(size.height, size.width) <= above:
        return None
    sides = ((request.tile_height, size.height), (request.tile_width, size.width))
    height, width = (above // 2 if min(tile, side) > above else tile for tile, side in sides)
    step = _OVERLAP * checkpoint.vae_scale_factor
    return VaeTile(height=_OVERLAP * _latents(height, step), width=_OVERLAP * _latents(width, step))


def warnings(request: ImageToImageInput, tiles: UNetTiles | None) -> list[str]:
    """A warning of each stride that is longer than its tile, or that is given without `tiles`."""
    found = []
    for side in ("width", "height"):
        field, tile = f"tile_stride_{side}", getattr(request, f"tile_{side}")
        stride = getattr(request, field)
        if field not in request.model_fields_set:
            continue
        if stride > tile:
            found.append(
                f"{field}: {stride} was cut to {tile}, because it may not exceed tile_{side}; "
                f"remove the field to use half of tile_{side}"
            )
        elif tiles is None and stride != ImageToImageInput.model_fields[field].default:
            found.append(f"{field}: no tile is smaller than the picture, ignored")
    return found


def _stride(request: ImageToImageInput, side: str) -> int:
    """Pixels between neighbouring tiles."""
    tile: int = getattr(request, f"tile_{side}")
    stride: int = getattr(request, f"tile_stride_{side}")
    is_given = f"tile_stride_{side}" in request.model_fields_set
    return min(stride, tile) if is_given else min(_MOST_STRIDE, tile // 2)


def _latents(pixels: int, scale: int) -> int:
    return max(pixels // scale, 1)
