"""Complete: a language model with its tokenizer, which `regard.load` gives for GPT, Llama and their kin."""

from collections.abc import Callable, Sequence
from typing import ClassVar, final

from regard.checkpoints.generation import NEW_TOKENS, GenerationConfig, generation_config
from regard.decode.search import Search
from regard.errors import DataError
from regard.lens.alignment import Alignment
from regard.lens.see import look_within, view_within
from regard.lens.view import View
from regard.tasks.check import check_texts
from regard.tasks.completion import Completion, complete, prompts_of
from regard.tasks.runner import Runner


@final
class TextGenerator(Runner):
    """A model with its tokenizer, and what the two can do.

    Args:
        module: the torch module; `module(tokens, lengths)` gives named results, `logits` and `hidden`.
        tokenizer: of the model; None where there is none, and then only the module is of use.
        config: what else is known of it.
    """

    job: ClassVar[str] = "complete"

    def complete(
        self,
        texts: Sequence[str],
        *,
        search: Search | None = None,
        max_new_tokens: int | None = None,
        stop: Sequence[str] | None = None,
        task: str | None = None,
        batch_size: int = 32,
        on_text: Callable[[int, str], None] | None = None,
    ) -> list[Completion]:
        """How texts go on; `str` of one is the text with its best continuation.

        Args:
            texts: any texts.
            search: `Greedy`, `Sample` or `Beam`; by default what a published checkpoint asks for, or `Greedy()`. Its
                rules for the tokens, its lengths and its stop strings hold in any case.
            max_new_tokens: tokens that may be written after each text, at most; by default as the checkpoint says, or
                else 64.
            stop: strings before which a text ends; by default those of the checkpoint, or else none.
            task: one of those that a published checkpoint's config.json names, such as "text-generation".
            batch_size: texts that run together, where they have as many tokens.
            on_text: called with the number of a text and what has been written, piece by piece as it comes. Not with a
                beam search.

        Returns:
            A completion for each text, in order, with `.text`, `.prompt` and all `.candidates`.

        Raises:
            DataError: something else than a list of texts, a text with more tokens than the model has positions or the
                checkpoint's greatest length has room for.
            ConfigError: a length, batch size or stop string that is none; on_text with a beam search; a task that the
                checkpoint does not name.
            UnsupportedError: no search, where the checkpoint asks for one that regard does not have.
        """
        wanted = self.generation_config(task, search=search)
        return complete(
            self.module,
            self.tokenizer,
            [wanted.prefix + text for text in texts] if wanted.prefix else texts,
            search=wanted.search,
            constraints=wanted.constraints,
            max_new_tokens=self._room(wanted) if max_new_tokens is None else max_new_tokens,
            stop=wanted.stop if stop is None else stop,
            batch_size=batch_size,
            on_text=on_text,
        )

    def generation_config(self, task: str | None = None, *, search: Search | None = None) -> GenerationConfig:
        """Generation settings that a published checkpoint asks for; the default ones for a model of regard's own.

        Args:
            task: one of those that its config.json names; None for none.
            search: one that goes before the checkpoint's.

        Returns:
            The search, rules for the tokens, the greatest length and the stop strings.

        Raises:
            ConfigError: a task that it does not name.
            UnsupportedError: a setting that cannot be honored.
        """
        fields = self.config.get("published")
        return generation_config(fields if isinstance(fields, dict) else {}, task, search=search)

    @staticmethod
    def _room(wanted: GenerationConfig) -> Callable[[int], int]:
        """Tokens that may be written after a prompt of so many."""

        def room(prompt: int) -> int:
            found = wanted.limit(prompt)
            if found is None:
                return NEW_TOKENS
            if found < 1:
                raise DataError(
                    f"a text has {prompt} tokens, and the checkpoint says max_length={wanted.max_length}, which counts "
                    "them; say max_new_tokens yourself, or shorten it"
                )
            return found

        return room

    def see(self, text: str) -> Alignment:
        """What each word of a text attends to: itself and those before it.

        Args:
            text: one or a few sentences.

        Returns:
            The weights of all layers and heads between words, those of the kind "text".

        Raises:
            DataError: a text that has no tokens or more than the model has positions.
        """
        check_texts([text])
        [ids] = prompts_of(self.tokenizer, [text])
        return look_within(self.module, self.tokenizer, ids)

    def view(self, text: str, *, grid: int = 64, top: int = 8) -> View:
        """What each token of a text attends to, in bins: of texts as long as the model reads.

        Args:
            text: what the model reads.
            grid: bins on each side of a map, at most.
            top: largest weights that are kept of each token.

        Returns:
            The maps of all layers and heads, for `rg.lens` pages and pictures.

        Raises:
            DataError: a text that is longer than the model reads, or has no tokens.
        """
        check_texts([text])
        [ids] = prompts_of(self.tokenizer, [text])
        return view_within(self.module, self.tokenizer, ids, grid=grid, top=top, title=text)
