import numpy as np
import pytest
from PIL import Image

from deploy.demo_model.world.backgrounds import LANDSCAPES, TEXTURES
from deploy.demo_model.world.colours import NAMED
from deploy.demo_model.world.edges import edges
from deploy.demo_model.world.scene import Scene, Thing, draw
from deploy.demo_model.world.things import KINDS


def test_lines_are_where_two_colours_meet_and_nowhere_else() -> None:
    picture = Image.new("RGB", (128, 128), NAMED["blue"])
    picture.paste(NAMED["yellow"], (32, 40, 96, 104))
    lines = np.asarray(edges(picture))

    assert lines.shape == (128, 128, 3)
    assert set(np.unique(lines)) == {0, 255}
    around = np.zeros((128, 128), dtype=bool)
    around[39:105, 31:97] = True
    around[41:103, 33:95] = False
    around[[39, 39, 104, 104], [31, 96, 31, 96]] = False  # a corner pixel has no neighbour across or down inside
    assert np.array_equal(lines[..., 0] > 0, around)


@pytest.mark.parametrize("texture", TEXTURES)
@pytest.mark.parametrize("colour", NAMED)
def test_a_pattern_has_no_lines(texture: str, colour: str) -> None:
    assert not np.asarray(edges(draw(Scene(texture, colour, ())))).any()


@pytest.mark.parametrize("texture", LANDSCAPES)
def test_a_landscape_has_its_horizon(texture: str) -> None:
    rows = np.nonzero(np.asarray(edges(draw(Scene(texture, "", ())))).any(axis=(1, 2)))[0]

    assert list(rows) == [79, 80]


@pytest.mark.parametrize("kind", KINDS)
def test_the_lines_of_a_thing_do_not_depend_on_its_background(kind: str) -> None:
    plain, dotted = (
        np.asarray(edges(draw(Scene(texture, "white", (Thing(kind, "blue"),))))) > 0 for texture in ("plain", "dotted")
    )

    assert plain.any()
    assert (plain & dotted).sum() > 0.9 * (plain | dotted).sum()
