"""Random scenes, and their split into training and held-out scenes."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from random import Random

from deploy.demo_model.world.backgrounds import LANDSCAPES, TEXTURES, main_colours
from deploy.demo_model.world.colours import CLEARLY_DIFFERENT, NAMED, distance
from deploy.demo_model.world.scene import PLACES, SIZES, Scene, Thing
from deploy.demo_model.world.things import KINDS

LANDSCAPE_SHARE = 0.15
PAIR_SHARE = 0.12
HELD_OUT_ONE_IN = 12


def training_scenes(seed: int) -> Iterator[Scene]:
    """Endless random scenes without held-out ones."""
    random = Random(seed)
    while True:
        scene = random_scene(random)
        if not held_out(scene):
            yield scene


def held_out(scene: Scene) -> bool:
    """Whether a thing's combination of kind, colour and background is excluded from training."""
    return any(_is_held_out(scene, thing) for thing in scene.things)


def _is_held_out(scene: Scene, thing: Thing) -> bool:
    named = f"{thing.colour} {thing.kind} {scene.background or scene.texture}"
    return zlib.crc32(named.encode()) % HELD_OUT_ONE_IN == 0


def random_scene(random: Random, *, alone: bool = False, kind: str = "") -> Scene:
    """A scene of one thing or, unless `alone`, sometimes two side by side; `kind` sets the main thing's kind."""
    texture, background = _random_background(random)
    pair = not alone and random.random() < PAIR_SHARE
    places = ["left", "right"] if pair else [random.choice([*PLACES, ""])]
    random.shuffle(places)
    colours = random.sample(clear_colours(texture, background), len(places))
    kinds = random.sample(sorted(KINDS), len(places))
    if kind:
        kinds[0] = kind
    sizes = ["small" if pair else random.choice(list(SIZES)) for _ in places]  # two larger ones would overlap
    things = (Thing(*parts) for parts in zip(kinds, colours, sizes, places, strict=True))
    return Scene(texture, background, tuple(things))


def with_other_thing(scene: Scene, random: Random) -> Scene:
    """`scene` with its only thing replaced by one of another kind and colour, at the same place in the same size."""
    (thing,) = scene.things
    kind = random.choice([kind for kind in sorted(KINDS) if kind != thing.kind])
    colour = random.choice([name for name in clear_colours(scene.texture, scene.background) if name != thing.colour])
    return Scene(scene.texture, scene.background, (Thing(kind, colour, thing.size, thing.place),))


def _random_background(random: Random) -> tuple[str, str]:
    if random.random() < LANDSCAPE_SHARE:
        return random.choice(sorted(LANDSCAPES)), ""
    texture = "plain" if random.random() < 0.5 else random.choice(TEXTURES[1:])
    return texture, random.choice(sorted(NAMED))


def clear_colours(texture: str, background: str) -> list[str]:
    """The names of the colours that stand out from a background (see `backgrounds`)."""
    behind = main_colours(texture, background)
    return [
        name for name, colour in NAMED.items() if all(distance(colour, other) > CLEARLY_DIFFERENT for other in behind)
    ]
