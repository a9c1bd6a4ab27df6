"""Former names work for one release, and say what they are called now."""

import pytest

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
