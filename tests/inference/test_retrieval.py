"""Example index: exact neighbors, and every id shown by one of them."""

import torch

from incontext.inference.retrieval import ExampleIndex


def test_nearest_by_cosine_of_what_differs():
    torch.manual_seed(0)
    features = torch.randn(40, 6) + 100  # what all share must not count
    shows = torch.ones(40, 1, dtype=torch.bool)
    asked = features[[3, 17]] + 0.01
    [chosen] = ExampleIndex(features, (shows,), 5).search(asked)
    centered = features - features.mean(0)
    for query, row in zip(asked, chosen, strict=True):
        likeness = torch.nn.functional.cosine_similarity(query - features.mean(0), centered, dim=1)
        assert row.tolist() == sorted(likeness.topk(5).indices.tolist())
    assert 3 in chosen[0]
    assert 17 in chosen[1]


def test_every_id_is_shown():
    """Ids that only far examples show take the places of the farthest chosen ones."""
    features = torch.stack([torch.arange(10.0), torch.ones(10)], 1)
    shows = torch.zeros(10, 2, dtype=torch.bool)
    shows[:, 0] = True
    shows[0, 1] = True
    [chosen] = ExampleIndex(features, (shows,), 3).search(torch.tensor([[9.0, 1.0]]))
    assert 0 in chosen[0]
    assert len(set(chosen[0].tolist())) == 3


def test_more_ids_than_places():
    features = torch.randn(5, 3)
    [chosen] = ExampleIndex(features, (torch.eye(5, dtype=torch.bool),), 2).search(features[:1])
    assert chosen.shape == (1, 2)
