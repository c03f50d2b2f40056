"""Captions of scenes, in varied words."""

from __future__ import annotations

from random import Random

from deploy.demo_model.world.backgrounds import LANDSCAPES
from deploy.demo_model.world.scene import Scene, Thing
from deploy.demo_model.world.things import SUBJECT

_OPENINGS = ("", "", "", "", "", "a picture of ", "a drawing of ", "an image of ")
_LANDSCAPES = {
    "meadow": ("on a meadow", "on green grass under a blue sky", "in a meadow", "on the grass"),
    "sea": ("on the sea", "at sea under a blue sky", "on the blue sea"),
}
_TEXTURES = {
    "plain": ("{} background", "plain {} background"),
    "striped": ("striped {} background", "{} striped background", "{} background with stripes"),
    "dotted": ("dotted {} background", "{} dotted background", "{} background with dots"),
    "gradient": ("{} gradient background", "gradient {} background"),
}
_PLACES = {
    "left": ("on the left", "left"),
    "right": ("on the right", "right"),
    "top": ("at the top", "top"),
    "bottom": ("at the bottom", "bottom"),
}


def caption(scene: Scene, random: Random) -> str:
    """A caption of `scene`: always the kinds and colours of its things, often size, place and background."""
    said = random.choice(_OPENINGS) + " and ".join(_with_article(_noun(thing, random)) for thing in scene.things)
    commas = random.random() < 0.3
    if len(scene.things) == 1 and scene.things[0].place and random.random() < 0.6:
        long, short = _PLACES[scene.things[0].place]
        said += f", {short}" if commas else f" {long}"
    if random.random() < 0.8:
        said += f", {_background(scene, random, bare=True)}" if commas else f" {_background(scene, random, bare=False)}"
    return said


def _noun(thing: Thing, random: Random) -> str:
    """A thing without its article. The subject has fixed colours, so its colour is not named."""
    words = [thing.size if random.random() < 0.8 else "", "" if thing.kind == SUBJECT else thing.colour, thing.kind]
    return " ".join(word for word in words if word)


def _with_article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def _background(scene: Scene, random: Random, *, bare: bool) -> str:
    if scene.texture in LANDSCAPES:
        return random.choice(_LANDSCAPES[scene.texture])
    words = random.choice(_TEXTURES[scene.texture]).format(scene.background)
    return words if bare else f"on {_with_article(words)}"


def words() -> list[str]:
    """Every word of the captions' fixed parts, sorted."""
    said = [*_OPENINGS, *sum(_LANDSCAPES.values(), ()), *sum(_TEXTURES.values(), ()), *sum(_PLACES.values(), ())]
    return sorted({word for phrase in said for word in phrase.split() if word != "{}"} | {"a", "an", "and", "on"})
