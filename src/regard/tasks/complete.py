"""Text generation: a language model with its tokenizer, as `regard.load` returns for GPT and Llama families."""

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
    """A language model with its tokenizer: continues texts and shows their attention.

    Args:
        module: the torch module; `module(tokens, lengths)` gives named results, `logits` and `hidden`.
        tokenizer: of the model; None if its folder has none, and then only the module can be used.
        config: fields of config.json, those of a published checkpoint under "published".
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
        """Continue texts; `str` of a result is the text with its best continuation.

        Args:
            texts: any texts.
            search: `Greedy`, `Sample` or `Beam`; by default that of the checkpoint's generation config, or
                `Greedy()`. The config's token constraints, lengths and stop strings apply in any case.
            max_new_tokens: maximum number of new tokens; by default the checkpoint's, or else 64.
            stop: stop strings, before which a text ends; by default those of the checkpoint.
            task: one of those that a published checkpoint's config.json names, such as "text-generation".
            batch_size: texts per batch; texts in one batch have equal numbers of tokens.
            on_text: called with the index of a text and each new piece of its continuation. Not with beam
                search.

        Returns:
            A completion for each text, in order, with `.text`, `.prompt` and all `.candidates`.

        Raises:
            DataError: texts that are not a list of strings, or a text that leaves no room for new tokens: more tokens
                than the model has positions, or than the checkpoint's maximum length.
            ConfigError: an invalid length, batch size or stop string; on_text with beam search; a task that the
                checkpoint does not name.
            UnsupportedError: no `search`, and a checkpoint whose generation config asks for one that is not supported.
        """
        settings = self.generation_config(task, search=search)
        return complete(
            self.module,
            self.tokenizer,
            [settings.prefix + text for text in texts] if settings.prefix else texts,
            search=settings.search,
            constraints=settings.constraints,
            max_new_tokens=self._room(settings) if max_new_tokens is None else max_new_tokens,
            stop=settings.stop if stop is None else stop,
            batch_size=batch_size,
            on_text=on_text,
        )

    def generation_config(self, task: str | None = None, *, search: Search | None = None) -> GenerationConfig:
        """Generation settings that a published checkpoint asks for; the default ones for a model of regard's own.

        Args:
            task: one of those that its config.json names; None for none.
            search: overrides the checkpoint's.

        Returns:
            The search, token constraints, maximum length and stop strings.

        Raises:
            ConfigError: a task that it does not name.
            UnsupportedError: a setting that is not supported.
        """
        fields = self.config.get("published")
        return generation_config(fields if isinstance(fields, dict) else {}, task, search=search)

    @staticmethod
    def _room(settings: GenerationConfig) -> Callable[[int], int]:
        """Maximum number of new tokens as a function of the prompt's number of tokens."""

        def room(prompt: int) -> int:
            limit = settings.limit(prompt)
            if limit is None:
                return NEW_TOKENS
            if limit < 1:
                raise DataError(
                    f"a text has {prompt} tokens, and the checkpoint says max_length={settings.max_length}, "
                    "which counts them; say max_new_tokens yourself, or shorten it"
                )
            return limit

        return room

    def see(self, text: str) -> Alignment:
        """Attention of each word of a text to itself and the words before it.

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
        """Attention between the tokens of a text, in bins, up to the model's maximum length.

        Args:
            text: the input.
            grid: bins on each side of a map, at most.
            top: number of largest weights to keep per token.

        Returns:
            The maps of all layers and heads, which pages and pictures show.

        Raises:
            DataError: a text without tokens, or longer than the model's maximum length.
        """
        check_texts([text])
        [ids] = prompts_of(self.tokenizer, [text])
        return view_within(self.module, self.tokenizer, ids, grid=grid, top=top, title=text)
