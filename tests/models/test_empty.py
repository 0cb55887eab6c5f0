"""Empty batches and empty texts through layers, models and jobs: shapes as PyTorch's own modules have them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import regard as rg
from regard.errors import DataError, ShapeError
from regard.layers.causal_layer import CausalLayer
from regard.layers.convolution import GatedConvolution
from regard.layers.cross_attention import CrossAttention
from regard.layers.transformer_layer import DecoderLayer, EncoderLayer, FeedForward, GatedFeedForward
from regard.tasks.complete import TextGenerator
from regard.tasks.encode import Encoder
from tests.checkpoints.published import word_pieces

SIZE = 30
VOCABULARY = rg.Vocabulary(size=SIZE)
HEADS = {"embed_dim": 12, "num_heads": 3, "ffn_dim": 20}
STATES = {"embed_dim": 12, "hidden_dim": 12}
PAIRED: dict[str, Callable[[], nn.Module]] = {
    "transformer": lambda: rg.Transformer(
        rg.TransformerConfig(vocabulary=VOCABULARY, encoder_layers=1, decoder_layers=1, **HEADS)
    ),
    "t5": lambda: rg.T5(rg.T5Config(vocabulary=VOCABULARY, head_dim=4, encoder_layers=1, decoder_layers=1, **HEADS)),
    "convs2s": lambda: rg.ConvS2S(rg.ConvS2SConfig(vocabulary=VOCABULARY, **STATES)),
    "rnn": lambda: rg.RNN(rg.RNNConfig(vocabulary=VOCABULARY, **STATES)),
    "luong": lambda: rg.Luong(rg.LuongConfig(vocabulary=VOCABULARY, window="local-p", **STATES)),
    "luong-location": lambda: rg.Luong(
        rg.LuongConfig(vocabulary=VOCABULARY, window="local-m", score="location", input_feeding=False, **STATES)
    ),
}
RECURRENT = ("rnn", "luong", "luong-location")
SINGLE: dict[str, Callable[[], nn.Module]] = {
    "gpt": lambda: rg.GPT(rg.GPTConfig(vocabulary=VOCABULARY, num_layers=2, max_length=8, band=2, **HEADS)),
    "llama": lambda: rg.Llama(rg.LlamaConfig(vocabulary=VOCABULARY, num_layers=2, max_length=8, **HEADS)),
    "bert": lambda: rg.Bert(rg.BertConfig(vocab_size=SIZE, num_layers=1, max_positions=8, **HEADS)),
    "roberta": lambda: rg.Bert(
        rg.BertConfig(family="roberta", vocab_size=SIZE, num_layers=1, max_positions=8, pad=1, **HEADS)
    ),
}


def ids(batch: int, length: int) -> Tensor:
    return torch.full((batch, length), 5)


def check(model: nn.Module, shape: tuple[int, int], *inputs: Tensor | None) -> None:
    """Training, evaluation and inference, and gradients."""
    for training in (True, False):
        model.train(training)
        logits = model(*inputs).logits
        assert logits.shape == (*shape, SIZE)
        assert logits.isfinite().all()
        gradients = torch.autograd.grad(logits.sum(), list(model.parameters()), allow_unused=True)
        assert all(x is None or x.isfinite().all() for x in gradients)
    with torch.inference_mode():
        assert model(*inputs).logits.shape == (*shape, SIZE)


@pytest.mark.parametrize("name", PAIRED)
def test_pairs(name: str) -> None:
    model = PAIRED[name]()
    check(model, (0, 3), ids(0, 4), None, ids(0, 3))
    if name in RECURRENT:
        for inputs in ((ids(2, 0), None, ids(2, 3)), (ids(2, 4), None, ids(2, 0))):
            with pytest.raises(ShapeError, match="at least one position"):
                model(*inputs)
        with pytest.raises(RuntimeError, match="larger than 0"):
            nn.GRU(12, 12, batch_first=True)(torch.zeros(2, 0, 12))  # PyTorch's neither
        return
    check(model, (2, 0), ids(2, 4), None, ids(2, 0))
    check(model, (2, 3), ids(2, 0), None, ids(2, 3))
    check(model, (0, 0), ids(0, 0), None, ids(0, 0))


@pytest.mark.parametrize("name", SINGLE)
def test_texts(name: str) -> None:
    model = SINGLE[name]()
    for batch, length in ((0, 4), (2, 0), (0, 0)):
        check(model, (batch, length), ids(batch, length))
        check(model, (batch, length), ids(batch, length), torch.full((batch,), length))


def test_a_pooler_reads_a_first_token() -> None:
    model = rg.Bert(rg.BertConfig(vocab_size=SIZE, num_layers=1, pooler=True, **HEADS))
    assert model(ids(0, 3)).pooled.shape == (0, 12)
    with pytest.raises(ShapeError, match="at least one token in each text, which the pooler reads"):
        model(ids(2, 0))


LAYERS: dict[str, tuple[nn.Module, Callable[[Tensor], tuple[Any, ...]]]] = {
    "attention": (rg.MultiHeadAttention(12, 3, positions=rg.Rotary(4), dropout=0.1), lambda x: (x,)),
    "learned attention": (
        rg.MultiHeadAttention(
            12, 3, score=rg.LearnedAdditive(), normalizer=rg.LearnedEntmax(), position_bias=rg.LearnedRelativeBias(8)
        ),
        lambda x: (x,),
    ),
    "encoder": (EncoderLayer(12, 3, 20), lambda x: (x, rg.Full())),
    "decoder": (DecoderLayer(12, 3, 20), lambda x: (x, x, rg.Full())),
    "causal": (
        CausalLayer(
            rg.MultiHeadAttention(12, 3, pattern=rg.Causal()), FeedForward(12, 20), norm=lambda: nn.LayerNorm(12)
        ),
        lambda x: (x,),
    ),
    "gated": (GatedFeedForward(12, 20), lambda x: (x,)),
    "cross": (CrossAttention(12, 12), lambda x: (x, x, x)),
    "convolution": (GatedConvolution(12, 1), lambda x: (x,)),
    "sinusoidal": (rg.SinusoidalPositions(12), lambda x: (x,)),
    "learned": (rg.LearnedPositions(5, 12), lambda x: (x, torch.zeros(len(x), dtype=torch.int64))),
}  # fmt: skip


@pytest.mark.parametrize(("layer", "inputs"), LAYERS.values(), ids=LAYERS)
@pytest.mark.parametrize("shape", [(0, 4, 12), (2, 0, 12)])
def test_layers(layer: nn.Module, inputs: Callable[[Tensor], tuple[Any, ...]], shape: tuple[int, ...]) -> None:
    for training in (True, False):
        assert layer.train(training)(*inputs(torch.zeros(shape))).shape == shape
    with torch.inference_mode():
        assert rg.accelerate(layer)(*inputs(torch.zeros(shape))).shape == shape


def test_memory_of_nothing() -> None:
    """PyTorch's layer gives its output bias, the projection of zeros."""
    theirs = nn.MultiheadAttention(12, 3, batch_first=True)
    with torch.no_grad():
        theirs.out_proj.bias.copy_(torch.arange(12.0))
    x, memory = torch.randn(2, 3, 12), torch.zeros(2, 0, 12)
    torch.testing.assert_close(rg.MultiHeadAttention.from_torch(theirs)(x, memory), theirs(x, memory, memory)[0])


@pytest.mark.parametrize("name", [*PAIRED, "gpt", "llama"])
@pytest.mark.parametrize("search", [rg.Beam(), rg.Greedy(), rg.Sample(seed=1)], ids=["beam", "greedy", "sample"])
def test_nothing_to_decode(name: str, search: rg.Beam | rg.Greedy | rg.Sample) -> None:
    model = (PAIRED | SINGLE)[name]().eval()
    assert rg.generate(model, [], search=search) == []
    with torch.inference_mode():
        state = model.start(model.encode(ids(0, 3)) if name in PAIRED else ids(0, 3))
        for _ in range(2):
            assert model.step(ids(0, 1), state).shape == (0, 1, SIZE)


def test_no_texts() -> None:
    translator = rg.load()
    assert translator.translate([]) == []
    assert [str(one) for one in translator.translate(["", "  "])] == ["", ""]
    with pytest.raises(DataError, match="no pairs"):
        translator.evaluate([])
    tokenizer = word_pieces()
    bert = rg.Bert(rg.BertConfig(vocab_size=14, num_layers=1, max_positions=8, **HEADS))
    encoder = Encoder(bert, tokenizer)
    assert encoder.fill([]) == []
    assert encoder.embed([]).shape == (0, 12)
    assert TextGenerator(SINGLE["gpt"](), tokenizer).complete([]) == []


@pytest.mark.parametrize("name", PAIRED)
def test_the_loss_of_nothing(name: str) -> None:
    model, nothing = PAIRED[name](), ids(0, 4)
    loss = model(nothing, None, nothing).cross_entropy(nothing, label_smoothing=0.1)
    loss.smoothed.backward()
    assert (loss.smoothed.item(), loss.plain.item(), loss.count) == (0, 0, 0)
    assert all(x.grad is None or not x.grad.any() for x in model.parameters())
