"""T5 against the transformers package's, on random small models: logits, states, gradients, and decoded tokens."""

import copy

import pytest
import torch

from regard.decode.generate import generate
from regard.decode.search import Beam, Greedy
from regard.models.seq2seq import Vocabulary
from regard.models.t5 import T5, T5Config
from regard.models.t5_names import from_t5, to_t5
from tests.models.inputs import lengths_of

transformers = pytest.importorskip("transformers")

SIZE = 47
VARIANTS = [
    {},
    {"decoder_layers": 1, "num_buckets": 8, "max_distance": 20, "activation": "gelu-tanh"},
    {"network": "gated", "activation": "gelu-tanh", "tie_output": False, "scale_output": False, "norm_eps": 1e-5},
    {"network": "gated", "activation": "swish", "scale_output": False, "head_dim": 3, "encoder_layers": 3},
]


def pair(dtype, **changes):
    """A random model of ours, and theirs with its weights."""
    torch.manual_seed(0)
    sizes = {"embed_dim": 20, "num_heads": 3, "head_dim": 5, "ffn_dim": 28, "encoder_layers": 2, "decoder_layers": 2}
    vocabulary = Vocabulary(size=SIZE, pad=0, bos=0, eos=1)
    ours = T5(T5Config(vocabulary=vocabulary, **{**sizes, **changes})).eval()
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            parameter += (1.0 if "bias" in name else 0.1) * torch.randn_like(parameter)
    fields, state = to_t5(ours)
    config = transformers.T5Config(**fields, attn_implementation="eager")
    assert config.scale_decoder_outputs == ours.config.scale_output
    theirs = transformers.T5ForConditionalGeneration(config).eval()
    if not ours.config.tie_output:
        theirs.lm_head.weight = torch.nn.Parameter(
            torch.empty_like(theirs.lm_head.weight)
        )  # which its config can't say
    left = theirs.load_state_dict(state)
    assert not left.unexpected_keys
    assert not left.missing_keys
    return ours.to(dtype), theirs.to(dtype)


@pytest.fixture
def full_norms(monkeypatch):
    """Their norms in the precision of what they get: they round the mean square to float32, float64 or not."""

    def forward(self, x):
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon))

    monkeypatch.setattr(transformers.models.t5.modeling_t5.T5LayerNorm, "forward", forward)


@pytest.fixture
def tokens():
    torch.manual_seed(1)
    source, target = torch.randint(2, SIZE, (4, 37)), torch.randint(2, SIZE, (4, 23))
    target[:, 0] = 0
    source[1, 16:] = source[3, 2:] = 0
    return source, target


def check_parity(ours, theirs, source, target, side, tolerance, exact=None):
    """Logits and states at places without padding, and the gradients of all parameters.

    With an exact model, whose gradients are the truth, ours may be as far from it as the tolerance, or twice as far as
    theirs: unscaled scores make some of them sums of large terms that cancel.
    """
    lengths = (source != 0).sum(1)
    shifts = source.shape[1] - lengths if side == "left" else torch.zeros_like(lengths)
    padded = torch.stack([row.roll(int(shift)) for row, shift in zip(source, shifts, strict=True)])
    found = ours(source, lengths_of(source), target)
    other = theirs(
        input_ids=padded,
        attention_mask=(padded != 0).long(),
        decoder_input_ids=target,
        output_hidden_states=True,
    )
    states = torch.stack(
        [row.roll(-int(shift), 0) for row, shift in zip(other.encoder_last_hidden_state, shifts, strict=True)]
    )
    there = (source != 0)[..., None]
    pairs = {
        "logits": (found.logits, other.logits),
        "features": (found.hidden, other.decoder_hidden_states[-1]),
        "memory": (found.memory.states * there, states * there),
    }
    for name, (mine, expected) in pairs.items():
        error = (mine - expected).abs().max() / expected.abs().max()
        assert error < tolerance, f"{name}: {error}"
    weights = torch.randn_like(found.logits)
    (found.logits * weights).sum().backward()
    (other.logits * weights).sum().backward()
    expected = to_t5_gradients(theirs)
    gradients = gradients_by_their_names(ours)
    assert set(gradients) == set(expected)
    truth = expected
    if exact is not None:
        (exact(source, lengths, target).logits * weights.double()).sum().backward()
        truth = gradients_by_their_names(exact)
    for name, gradient in gradients.items():
        scale = truth[name].abs().max()
        error, other = ((x - truth[name]).abs().max() / scale for x in (gradient, expected[name]))
        assert error < max(tolerance, 2 * other), f"gradient of {name}: {error}, theirs {other}"


def to_t5_gradients(theirs):
    return {name: x.grad for name, x in theirs.named_parameters()}


def gradients_by_their_names(ours):
    """Our gradients as theirs are named: as if they were weights."""
    graded = T5(ours.config).to(next(ours.parameters()).dtype)
    with torch.no_grad():
        for mine, x in zip(graded.parameters(), ours.parameters(), strict=True):
            mine.copy_(x.grad)
    aliases = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
    aliases += ("lm_head.weight",) if ours.config.tie_output else ()
    return {name: x for name, x in to_t5(graded)[1].items() if name not in aliases}


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("changes", VARIANTS)
def test_float64(changes, side, tokens, full_norms):
    check_parity(*pair(torch.float64, **changes), *tokens, side, 1e-10)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("changes", VARIANTS)
def test_float32(changes, side, tokens):
    ours, theirs = pair(torch.float32, **changes)
    check_parity(ours, theirs, *tokens, side, 1e-5, exact=copy.deepcopy(ours).double())


@pytest.mark.parametrize("changes", VARIANTS)
def test_their_weights_come_back(changes, tokens):
    ours, theirs = pair(torch.float32, **changes)
    again = from_t5(theirs.config.to_dict(), theirs.state_dict())
    source, target = tokens
    found, expected = (model(source, lengths_of(source), target).logits for model in (again, ours))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert again.config == ours.config


@pytest.mark.parametrize("changes", VARIANTS)
def test_steps_are_whole_targets(changes, tokens):
    ours, _ = pair(torch.float32, **changes)
    source, target = tokens
    with torch.inference_mode():
        whole = ours(source, lengths_of(source), target).logits
        state = ours.start(ours.encode(source, lengths_of(source)))
        steps = [ours.step(column, state) for column in target.split(1, 1)]
    torch.testing.assert_close(torch.cat(steps, 1), whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("beams", [1, 4])
@pytest.mark.parametrize("changes", [VARIANTS[0], VARIANTS[2]])
def test_decoded_tokens_and_scores(changes, beams):
    ours, theirs = pair(torch.float32, **changes)
    lengths = torch.randint(1, 15, (40,))
    sources = [torch.randint(2, SIZE, (int(n),)).tolist() for n in lengths]
    padded = torch.zeros(len(sources), int(lengths.max()) + 1, dtype=torch.int64)
    for i, source in enumerate(sources):
        padded[i, : len(source) + 1] = torch.tensor([*source, 1])
    found = theirs.generate(
        input_ids=padded, attention_mask=(padded != 0).long(), num_beams=beams, do_sample=False, max_new_tokens=14,
        early_stopping=False, length_penalty=1.0, output_scores=True, return_dict_in_generate=True,
    )  # fmt: skip
    mine = generate(ours, sources, search=Greedy() if beams == 1 else Beam(beams), max_length=14)
    for row, (best, *_) in zip(found.sequences.tolist(), mine, strict=True):
        ended = row[1:].index(1) if 1 in row[1:] else 14
        assert best.tokens == row[1 : 1 + ended] + [0] * (14 - len(row[1:]))
    if beams > 1:
        scores = torch.tensor([best.score for best, *_ in mine])
        torch.testing.assert_close(scores, found.sequences_scores, rtol=0, atol=1e-5)
