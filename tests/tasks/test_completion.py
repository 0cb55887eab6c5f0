"""Text generation: streamed pieces join to the text, stop strings are cut, and prompts get their special tokens."""

import pytest
import tokenizers
import torch
from tokenizers import processors

from regard.data.published_tokenizer import PublishedTokenizer
from regard.decode.search import Beam, Greedy, Sample
from regard.tasks.completion import Writer, complete, prompts_of
from tests.checkpoints.language_models import END, byte_level, completer, own_completer
from tests.checkpoints.made import SENTENCES

TEXTS = [*SENTENCES, "", "a", "The library", " ", "\u20ac \U0001f600"]


def told(made, search, **settings):
    """Completions, and the pieces that were streamed of each."""
    pieces: dict[int, list[str]] = {i: [] for i in range(len(TEXTS))}
    found = complete(
        made.module, made.tokenizer, TEXTS, search=search, on_text=lambda i, piece: pieces[i].append(piece), **settings
    )
    return found, pieces


@pytest.mark.parametrize("search", [Greedy(), Sample(seed=3)], ids=str)
@pytest.mark.parametrize("made", [completer(), own_completer()], ids=["published", "own"])
def test_streamed_pieces_join_to_the_text(made, search):
    found, pieces = told(made, search, max_new_tokens=20)
    assert sum(len(some) for some in pieces.values()) > 3 * len(TEXTS)
    for i, one in enumerate(found):
        assert "".join(pieces[i]) == one.text
        assert all(pieces[i])
    without = complete(made.module, made.tokenizer, TEXTS, search=search, max_new_tokens=20)
    assert [one.text for one in without] == [one.text for one in found]


def test_a_text_goes_on_as_its_tokens_say():
    made = completer()
    [found] = complete(made.module, made.tokenizer, ["The library"], max_new_tokens=15)
    prompt, tokens = byte_level().encode("The library"), found.candidates[0].tokens
    assert str(found) == byte_level().decode([*prompt, *tokens])
    with torch.inference_mode():
        logits = made.module(torch.tensor([[*prompt, *tokens]])).logits[0]
    assert logits[len(prompt) - 1 : -1].argmax(1).tolist() == tokens
    assert found.candidates[0].end == "length"


@pytest.mark.parametrize("search", [Greedy(), Sample(seed=3), Beam(2)], ids=str)
def test_stop_strings_cut(search):
    made = completer()
    [whole] = complete(made.module, made.tokenizer, ["The library"], search=search, max_new_tokens=20)
    stop = whole.text[4:7]
    assert whole.text.count(stop) >= 1
    [found] = complete(
        made.module, made.tokenizer, ["The library"], search=search, max_new_tokens=20, stop=["nowhere", stop]
    )
    assert found.text == whole.text[: whole.text.index(stop)]
    assert found.candidates[0].end == "stop"
    if not isinstance(search, Beam):
        assert len(found.candidates[0].tokens) < len(whole.candidates[0].tokens)
        pieces: list[str] = []
        complete(
            made.module, made.tokenizer, ["The library"], search=search, max_new_tokens=20, stop=[stop],
            on_text=lambda _, piece: pieces.append(piece),
        )  # fmt: skip
        assert "".join(pieces) == found.text


def test_no_text_is_streamed_that_may_change():
    writer = Writer(byte_level(), byte_level().encode("a"), ["xyz"])
    seen = []
    for token in byte_level().encode("b\u20acxyaxyz!"):
        writer.add(token)
        seen.append(writer.ready(last=writer.stopped))
    assert "".join(seen) == writer.text == "b\u20acxya"
    assert writer.stopped
    assert "\ufffd" not in "".join(seen)
    assert "xy" not in seen  # held back until it was no beginning of a stop
    broken = Writer(byte_level(), byte_level().encode("a"), [])
    broken.add(byte_level().encode("\u20ac")[0])
    assert broken.ready(last=False) == ""
    assert broken.ready(last=True) == "\ufffd"


def test_a_prompt_that_ends_in_part_of_a_character():
    tokens = byte_level().encode("\U0001f600")
    writer = Writer(byte_level(), tokens[:-1], [])
    writer.add(tokens[-1])
    assert writer.text == "\U0001f600"


def test_marks_before_a_prompt_stay_and_those_after_it_go():
    inner = tokenizers.Tokenizer.from_str(byte_level()._subwords.to_str())
    mark = (END, inner.token_to_id(END))
    inner.post_processor = processors.TemplateProcessing(single=f"{END} $A {END}", special_tokens=[mark])
    marked = PublishedTokenizer(inner, {"bos": END})
    plain = byte_level().encode("The library")
    assert prompts_of(marked, ["The library", ""]) == [[mark[1], *plain], [mark[1]]]
    assert prompts_of(byte_level(), ["The library"]) == [plain]
    own = own_completer().tokenizer
    assert prompts_of(own, ["a"]) == [[own.bos, *own.encode("a")]]


def test_ends():
    made = completer()
    [first] = complete(made.module, made.tokenizer, ["a"], max_new_tokens=3)
    token = first.candidates[0].tokens[1]
    with torch.no_grad():  # as if the second token were the end
        weight = made.module.embedding.weight
        weight[[0, token]] = weight[[token, 0]]
    [second] = complete(made.module, made.tokenizer, ["a"], max_new_tokens=3)
    if token not in byte_level().encode("a") + first.candidates[0].tokens[:1]:
        assert second.candidates[0].end == "end"
        assert second.candidates[0].tokens == first.candidates[0].tokens[:1]
