"""Former names work for one release, and say what they are called now."""

import numpy as np
import pytest
import torch

import incontext
from incontext.errors import former_attributes, former_parameters


class Shape:
    sides = 4
    __getattr__ = former_attributes(corners="sides")


@former_parameters(tell="on_progress")
def double(number: int, on_progress: str = "") -> tuple[int, str]:
    return 2 * number, on_progress


def test_attributes():
    with pytest.warns(DeprecationWarning, match="corners is now called sides"):
        assert Shape().corners == 4
    with pytest.raises(AttributeError, match="'Shape' object has no attribute 'angles'"):
        Shape().angles


def test_parameters():
    with pytest.warns(DeprecationWarning, match="tell is now called on_progress"):
        assert double(2, tell="x") == (4, "x")
    assert double(3, on_progress="y") == (6, "y")
    with pytest.raises(TypeError, match="hear"):
        double(1, hear="x")


def test_pool_is_a_labelled_set():
    with pytest.warns(DeprecationWarning, match="Pool is now called LabelledSet"):
        pool = incontext.Pool
    assert pool is incontext.LabelledSet
    example = incontext.Example(np.zeros((8, 8, 3), np.uint8), np.ones((8, 8), np.uint8))
    dataset = pool.of([example], 8)
    assert dataset.known() == dataset.showing() == [0]
    assert dataset.picture(0).size == (8, 8)
    assert dataset.named({1: "cell"}).names == {1: "cell"}


def test_examples_prompts_and_results(tiny_checkpoint):
    example = incontext.Example(np.zeros((8, 8, 3), np.uint8), np.ones((8, 8), np.uint8))
    with pytest.warns(DeprecationWarning, match="of is now called from_labels"):
        again = incontext.Example.of(example.image, example.labels)
    predictor = incontext.Predictor.from_pretrained(tiny_checkpoint)
    prompt = predictor.prompt([example, again], nearest=1)
    for former, name in (("gallery", "example_index"), ("made", "provenance")):
        with pytest.warns(DeprecationWarning, match=f"{former} is now called {name}"):
            assert getattr(prompt, former) is getattr(prompt, name)
    with pytest.warns(DeprecationWarning, match="encoded is now called encoded_prompt"):
        assert prompt.passes[0].encoded is prompt.passes[0].encoded_prompt
    result = predictor.predict(example.image, prompt)
    with pytest.warns(DeprecationWarning, match="picture is now called image"):
        assert result.picture is result.image
    with pytest.warns(DeprecationWarning, match="shown is now called example_indices"):
        predictor.paint([example.image], prompt, shown=torch.tensor([[0]]))
    with pytest.warns(DeprecationWarning, match="settle is now called precompute_targets"):
        predictor.encode([example], prompt.passes[0].coloring, settle=False)
    with pytest.warns(DeprecationWarning, match="of is now called color"):
        assert incontext.Palette(((1, 2, 3),)).of(1) == (1, 2, 3)


def test_settings_of_tuning():
    with pytest.warns(DeprecationWarning, match="rate is now called learning_rate"):
        settings = incontext.Settings(rate=0.1)
    with pytest.warns(DeprecationWarning, match="judged is now called evaluations"):
        assert settings.judged == settings.evaluations == 5
    assert settings.learning_rate == 0.1
