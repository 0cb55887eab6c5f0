"""A decision as a view: of a classifier of the library transformers, beside its own eager weights."""

import pytest
import torch

from regard.lens.attribute import Explained
from regard.lens.explain import explained_view

IDS = [2, 11, 5, 7, 13, 3]


def test_a_classifier_of_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=17, hidden_size=12, num_attention_heads=3, num_hidden_layers=2, intermediate_size=20, num_labels=5
    )
    model = transformers.BertForSequenceClassification(config).eval()
    explained = Explained(model, IDS, label=4, special=frozenset({0, 5}))
    view = explained_view(explained, [str(i) for i in IDS], "fifth", title="A text")
    model.set_attn_implementation("eager")
    expected = model(torch.tensor([IDS]), output_attentions=True).attentions
    for layer, weights in zip(view.layers, expected, strict=True):
        torch.testing.assert_close(layer.grid, weights[0], atol=1e-5, rtol=0)
    assert view.axes["text"].special == {0, 5}
    for one in view.attributions:
        assert one.scores[[0, 5]].tolist() == [0, 0]
        assert set(one.trust) >= {"comprehensiveness", "random comprehensiveness", "sufficiency", "deletion area"}
