"""The sizes of a request's tiles, in latents, as `prepare` resolves them."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class UNetTiles(BaseModel):
    """The windows in which the UNet denoises a picture: their size, and the distance between their upper left corners.

    A window is not larger than the picture, and the distance is not larger than the window.
    """

    model_config = ConfigDict(frozen=True)
    height: int
    width: int
    stride_height: int
    stride_width: int


class VaeTile(BaseModel):
    """The size of the tiles in which the VAE processes a picture; multiples of 4. Neighbours overlap by a quarter."""

    model_config = ConfigDict(frozen=True)
    height: int
    width: int
