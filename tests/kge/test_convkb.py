from typing import Any

import torch
from pykeen.nn.modules import ConvKBInteraction

from pkgllm.kge.convkb import SummedConvKb

SETTINGS: dict[str, Any] = {"hidden_dropout_rate": 0.5, "embedding_dim": 5, "num_filters": 3}


def test_scores_and_gradients_are_pykeen_s() -> None:
    torch.manual_seed(0)
    theirs, ours = ConvKBInteraction(**SETTINGS).eval(), SummedConvKb(**SETTINGS).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_()
    ours.load_state_dict(theirs.state_dict())
    assert [name for name, _ in ours.named_parameters()] == [
        name for name, _ in theirs.named_parameters()
    ]
    # As training, fold-in and ranking ask: one by one, one against many, and all pairs.
    for shapes in (((4,), (4,), (4,)), ((4, 1), (4, 1), (4, 6)), ((4, 1), (1, 1), (1, 6))):
        parts = [torch.randn(*shape, 5, requires_grad=True) for shape in shapes]
        expected, scores = theirs(*parts), ours(*parts)
        assert scores.shape == expected.shape
        assert torch.allclose(scores, expected, atol=1e-5)
        wrt = [*parts, *theirs.parameters()], [*parts, *ours.parameters()]
        pairs = [
            torch.autograd.grad((one * one).sum(), those)
            for one, those in zip((expected, scores), wrt, strict=True)
        ]
        for one, other in zip(*pairs, strict=True):
            assert torch.allclose(one, other, rtol=1e-4, atol=1e-4)


def test_dropout_falls_on_the_feature_maps_in_training_alone() -> None:
    torch.manual_seed(0)
    model = SummedConvKb(**SETTINGS)
    parts = [torch.randn(5) for _ in range(3)]
    with torch.no_grad():
        assert len({model(*parts).item() for _ in range(20)}) > 1
        model.eval()
        assert len({model(*parts).item() for _ in range(20)}) == 1
