"""What the tests of language models against the transformers package share."""

import torch

from regard.decode.generate import generate
from regard.decode.search import Greedy

LENGTHS = torch.tensor([9, 4, 1, 7])


def randomized(made, config, dtype):
    """Their model with weights that are large enough to matter everywhere, in evaluation mode."""
    torch.manual_seed(0)
    theirs = made(config)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(parameter + 0.25 * torch.randn_like(parameter))
    return theirs.to(dtype).eval()


def padded_texts(size: int, side: str):
    """Texts of different lengths with noise as padding: tokens, their attention mask and their positions.

    Without token 0, `pad` of the tests' models, to whose vector Llama's published code gives no gradient.
    """
    torch.manual_seed(1)
    tokens = torch.randint(1, size, (len(LENGTHS), int(LENGTHS.max())))
    places = torch.arange(tokens.shape[1])
    mask = places < LENGTHS[:, None] if side == "right" else places >= tokens.shape[1] - LENGTHS[:, None]
    return tokens, mask, (mask.long().cumsum(1) - 1).clamp(min=0)


def run_both(ours, theirs, side: str):
    """Hidden vectors and logits of the tokens that are not padding: ours and theirs, (tokens, ...)."""
    tokens, mask, positions = padded_texts(ours.vocabulary.size, side)
    found = theirs(
        tokens, attention_mask=mask.long(), position_ids=positions, output_hidden_states=True, use_cache=False
    )
    order = mask.long().argsort(dim=1, descending=True, stable=True)  # padding at the left goes to the right
    output = ours(tokens.gather(1, order), LENGTHS)
    there = torch.arange(tokens.shape[1]) < LENGTHS[:, None]
    return (output.hidden[there], output.logits[there]), (found.hidden_states[-1][mask], found.logits[mask])


def close(mine, other):
    """Within 1e-10 in float64; in float32 within 1e-5 of the largest entry."""
    error = 1e-10 if mine.dtype == torch.float64 else 1e-5
    assert (mine - other).abs().max() <= error * max(1.0, float(other.abs().max()))


def check_outputs(ours, theirs):
    for side in ("right", "left"):
        with torch.no_grad():
            mine, other = run_both(ours, theirs, side)
        for a, b in zip(mine, other, strict=True):
            assert a.dtype == b.dtype
            close(a, b)


def check_gradients(ours, theirs, back):
    """Of every parameter, by their names: `back` writes our tensors by them."""
    (mine, logits), (other, their_logits) = run_both(ours, theirs, "left")
    weights = torch.randn_like(logits)
    (mine.square().mean() + (logits * weights).mean()).backward()
    (other.square().mean() + (their_logits * weights).mean()).backward()
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.copy_(parameter.grad)
    _, gradients = back(ours)
    expected = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    assert set(expected) <= set(gradients)
    for name, gradient in expected.items():
        close(gradients[name], gradient)


def check_greedy(ours, theirs):
    """The same tokens as `generate`: of prompts of several lengths, in one batch, padded at the left."""
    tokens, mask, _ = padded_texts(ours.vocabulary.size, "left")
    found = theirs.generate(tokens, attention_mask=mask.long(), do_sample=False, max_new_tokens=8)
    prompts = [row[there].tolist() for row, there in zip(tokens, mask, strict=True)]
    mine = generate(ours, prompts, search=Greedy(), max_length=8)
    ends = {ours.vocabulary.eos, *ours.vocabulary.more_eos}
    for row, [one] in zip(found[:, tokens.shape[1] :].tolist(), mine, strict=True):
        end = next((i for i, token in enumerate(row) if token in ends), len(row))
        assert one.tokens == row[:end]
        assert one.finished == (end < len(row))


def check_same(again, state, theirs):
    """That a model of theirs, made from our fields, and our tensors are what we were given."""
    expected = theirs.state_dict()
    assert {*state} | {"lm_head.weight"} == {*expected}
    for name, x in state.items():
        assert torch.equal(x, expected[name]), name
    again.load_state_dict(state, strict=False)
    again.tie_weights()
    tokens = torch.randint(0, theirs.config.vocab_size, (2, 9))
    again.set_attn_implementation(theirs.config._attn_implementation)
    with torch.no_grad():
        close(again.eval()(tokens).logits, theirs(tokens).logits)
