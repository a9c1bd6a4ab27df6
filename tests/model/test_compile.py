"""torch.compile changes nothing but speed."""

import shutil
from dataclasses import replace

import pytest
import torch

from incontext import Predictor
from incontext.model import SIZES, SegGPT


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile on CPU needs a C++ compiler")
@pytest.mark.slow
def test_compiled_equals_plain():
    model = SegGPT(replace(SIZES["tiny"], depth=2, merge_after=0, taps=(1,)))
    query, image, target = torch.randn(3, 1, 3, 32, 32)
    arguments = (query, image[None], target[None], torch.tensor([True]))
    with torch.inference_mode():
        plain = Predictor(model).model(*arguments)
        compiled = Predictor(model, compile=True).model(*arguments)
    torch.testing.assert_close(compiled, plain, atol=1e-5, rtol=1e-5)
