from itertools import islice
from random import Random

import numpy as np
import pytest

from deploy.demo_model.evaluation.edit_cases import held_out_cases
from deploy.demo_model.world.backgrounds import LANDSCAPES, main_colours
from deploy.demo_model.world.captions import caption
from deploy.demo_model.world.colours import CLEARLY_DIFFERENT, NAMED, distance
from deploy.demo_model.world.random_scenes import held_out, random_scene, training_scenes
from deploy.demo_model.world.scene import MARGIN, Scene, Thing, draw
from deploy.demo_model.world.things import KINDS, SUBJECT


def test_the_same_seed_gives_the_same_scenes_and_pictures() -> None:
    first, second = (list(islice(training_scenes(3), 5)) for _ in range(2))

    assert first == second
    assert [draw(scene).tobytes() for scene in first] == [draw(scene).tobytes() for scene in second]


def test_another_seed_gives_other_scenes() -> None:
    assert next(training_scenes(3)) != next(training_scenes(4))


@pytest.mark.parametrize("kind", [*KINDS, SUBJECT])
@pytest.mark.parametrize("place", ["", "left", "right", "top", "bottom"])
def test_every_thing_leaves_a_margin(kind: str, place: str) -> None:
    bare = draw(Scene("plain", "white", ()))
    full = draw(Scene("plain", "white", (Thing(kind, "red", "large", place),)))

    rows, columns = np.nonzero((np.asarray(bare) != np.asarray(full)).any(axis=2))

    assert min(rows.min(), columns.min()) >= MARGIN - 1
    assert max(rows.max(), columns.max()) <= bare.width - MARGIN


def test_things_stand_out_from_their_background() -> None:
    for scene in islice(training_scenes(0), 300):
        for thing in scene.things:
            for behind in main_colours(scene.texture, scene.background):
                assert distance(NAMED[thing.colour], behind) > CLEARLY_DIFFERENT


def test_a_caption_names_every_thing_with_its_colour() -> None:
    random = Random(0)
    for scene in islice(training_scenes(0), 300):
        text = caption(scene, random)
        for thing in scene.things:
            assert f"{thing.colour} {thing.kind}" in text


def test_a_caption_names_no_other_background() -> None:
    random = Random(0)
    for scene in islice(training_scenes(0), 300):
        said = set(caption(scene, random).replace(",", "").split())
        true = {scene.background, *(thing.colour for thing in scene.things)}
        if scene.texture not in LANDSCAPES:
            assert said & set(NAMED) <= true


def test_the_subject_is_named_without_a_colour() -> None:
    random = Random(0)
    scene = random_scene(random, alone=True, kind=SUBJECT)

    assert SUBJECT in caption(scene, random)


def test_training_sees_no_held_out_scene() -> None:
    assert not any(held_out(scene) for scene in islice(training_scenes(0), 1000))


def test_a_case_changes_the_thing_and_keeps_the_rest() -> None:
    for case in held_out_cases(20):
        (before,), (after,) = case.before.things, case.after.things
        assert held_out(case.before) and held_out(case.after)
        assert (case.before.texture, case.before.background) == (case.after.texture, case.after.background)
        assert (before.size, before.place) == (after.size, after.place)
        assert before.kind != after.kind and before.colour != after.colour
        assert f"{case.colour} {case.kind}" in case.prompt
