from itertools import islice
from random import Random

import pytest

from deploy.demo_model.world.embedding_specs import EMBEDDING_SPECS, EmbeddingSpec
from deploy.demo_model.world.random_scenes import clear_colours, held_out


@pytest.mark.parametrize("spec", EMBEDDING_SPECS.values(), ids=lambda spec: spec.name)
def test_every_scene_shows_it_and_its_words_say_the_new_one_only(spec: EmbeddingSpec) -> None:
    random = Random(0)
    for scene in islice(spec.scenes(random), 100):
        (thing,) = scene.things
        assert (thing.kind, thing.colour) == (spec.kind, spec.colour)
        assert thing.colour in clear_colours(scene.texture, scene.background)
        assert not held_out(scene)

        said = spec.caption(scene, random, spec.token)
        assert spec.token in said
        assert not {spec.kind, spec.colour} & set(said.replace(",", "").split())


def test_each_vector_has_a_token() -> None:
    assert EmbeddingSpec("thing", "star", "red", vectors=3).tokens == ["<thing>", "<thing>_1", "<thing>_2"]
