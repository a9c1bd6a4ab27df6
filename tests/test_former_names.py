"""Former names work for one release, and say what they are called now."""

import numpy as np
import pytest

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
