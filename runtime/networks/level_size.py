"""The sizes of a UNet's resolution levels. Importing this needs neither torch nor diffusers."""


def level_size(size: int, level: int, downsample_padding: int) -> int:
    """The height or width of a resolution level. An odd size is rounded up, but down without padding."""
    for _ in range(level):
        size = (size + downsample_padding) // 2
    return size
