import pytest
from PIL import Image

from deploy.demo_model.evaluation.adapters import FOLLOWS, outline_overlap
from deploy.demo_model.world.scene import Scene, Thing, draw
from deploy.demo_model.world.things import KINDS

PLAIN = draw(Scene("plain", "white", ()))


def _square(left: int, colour: str = "blue") -> Image.Image:
    picture = PLAIN.copy()
    picture.paste(colour, (left, 40, left + 40, 80))
    return picture


def test_the_overlap_of_squares_is_known() -> None:
    assert outline_overlap(_square(20), _square(20, "red")) == 1.0
    assert outline_overlap(_square(20), _square(40)) == pytest.approx(1 / 3)
    assert outline_overlap(_square(20), _square(70)) == 0.0
    assert outline_overlap(PLAIN, PLAIN) == 0.0


def test_other_kinds_and_places_do_not_follow_an_outline() -> None:
    """Another place is below the threshold, and another kind mostly is."""
    drawn = {kind: draw(Scene("plain", "white", (Thing(kind, "blue"),))) for kind in KINDS}
    others = [outline_overlap(drawn[one], drawn[two]) for one in KINDS for two in KINDS if one != two]
    moved = [
        outline_overlap(drawn[kind], draw(Scene("plain", "white", (Thing(kind, "blue", "", "left"),))))
        for kind in KINDS
    ]

    assert sum(overlap < FOLLOWS for overlap in others) > 0.8 * len(others)
    assert max(moved) < FOLLOWS
