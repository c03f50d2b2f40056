from itertools import islice
from random import Random

import pytest

from deploy.demo_model.inversions import INVERSIONS, Inversion
from deploy.demo_model.sampling import clear_colours, held_out


@pytest.mark.parametrize("inversion", INVERSIONS.values(), ids=lambda inversion: inversion.name)
def test_every_scene_shows_it_and_its_words_say_the_new_one_only(inversion: Inversion) -> None:
    random = Random(0)
    for scene in islice(inversion.scenes(random), 100):
        (thing,) = scene.things
        assert (thing.kind, thing.colour) == (inversion.kind, inversion.colour)
        assert thing.colour in clear_colours(scene.texture, scene.background)
        assert not held_out(scene)

        said = inversion.caption(scene, random, inversion.token)
        assert inversion.token in said
        assert not {inversion.kind, inversion.colour} & set(said.replace(",", "").split())


def test_each_vector_has_a_token() -> None:
    assert Inversion("thing", "star", "red", vectors=3).tokens == ["<thing>", "<thing>_1", "<thing>_2"]
