"""A published encoder with its tokenizer, as `regard.load` returns for BERT families."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, final

from torch import Tensor

from regard.checkpoints.hub import layout_of
from regard.checkpoints.sentence_transformers import layout_files
from regard.data.text_tokenizer import TextTokenizer
from regard.lens.alignment import Alignment
from regard.lens.see import look_within, view_within
from regard.lens.view import View
from regard.models.pooling import Embedding
from regard.models.text_encoder import TextEncoder
from regard.tasks.check import check_texts
from regard.tasks.embed import Embedded, embed
from regard.tasks.fill import Filling, fill
from regard.tasks.runner import Runner


@final
class Encoder(Runner):
    """A text encoder with its tokenizer: fills masks, embeds texts and shows their attention.

    Args:
        module: the torch module; `module(tokens, lengths)` gives named results, `hidden` and `logits` among them.
        tokenizer: of the model; None if its folder has none, and then only the module can be used.
        config: fields of config.json, those of a published checkpoint under "published".
        embedding: pooling and prompts of the checkpoint, if it has any.
    """

    job: ClassVar[str] = "encode"
    tokenizer_files: ClassVar[str] = "tokenizer.json, vocab.txt, or vocab.json and merges.txt"

    def __init__(
        self,
        module: TextEncoder,
        tokenizer: TextTokenizer | None,
        config: Mapping[str, Any] | None = None,
        *,
        embedding: Embedding = Embedding(),
    ) -> None:
        super().__init__(module, tokenizer, config)
        self.embedding = embedding

    @property
    def pooling(self) -> str:
        """Default pooling: the checkpoint's, or the mean."""
        return self.embedding.pooling

    @property
    def prompts(self) -> Mapping[str, str]:
        """Named prompts of the checkpoint."""
        return self.embedding.prompts

    def fill(self, texts: Sequence[str], *, top: int = 5, batch_size: int = 32) -> list[Filling]:
        """The most probable words for the masks of texts; `str` of one is the text with the best.

        Args:
            texts: each with at least one mask, written as `.tokenizer.roles["mask"]`.
            top: words for each mask.
            batch_size: texts per batch.

        Returns:
            A filling for each text, in order, with `.text` and `.places`.

        Raises:
            UnsupportedError: a model without a masked-word head, or a vocabulary without a mask.
            DataError: texts that are not a list of strings, or a text without a mask or that is too long.
        """
        return fill(self.module, self.tokenizer, texts, top=top, batch_size=batch_size)

    def embed(
        self,
        texts: Sequence[str],
        *,
        pooling: str | None = None,
        normalize: bool | None = None,
        prompt: str | None = None,
        prompt_name: str | None = None,
        batch_size: int = 32,
    ) -> Tensor:
        """Embedding of each text.

        Args:
            texts: any texts; those beyond the model's maximum length are truncated.
            pooling: "mean", "max", "cls", "mean_sqrt_len_tokens", "weightedmean" or "lasttoken", or several joined by
                "+"; by default the checkpoint's, or else the mean.
            normalize: whether to scale vectors to length 1; by default True, unless the checkpoint's similarity is
                not the cosine.
            prompt: prefix of each text, such as "query: "; "" for none.
            prompt_name: a key of `.prompts`; by default the checkpoint's default prompt, if it has one.
            batch_size: texts per batch.

        Returns:
            (texts, D).

        Raises:
            ConfigError: an unknown pooling or prompt.
            DataError: texts that are not a list of strings, or a text without tokens.
        """
        options = {"pooling": pooling, "normalize": normalize, "prompt": prompt, "prompt_name": prompt_name}
        return self.embedded(texts, **options, batch_size=batch_size).vectors

    def embedded(
        self,
        texts: Sequence[str],
        *,
        pooling: str | None = None,
        normalize: bool | None = None,
        prompt: str | None = None,
        prompt_name: str | None = None,
        batch_size: int = 32,
    ) -> Embedded:
        """The vectors of `embed`, and which texts were truncated.

        Args:
            texts: as for `embed`.
            pooling: as for `embed`.
            normalize: as for `embed`.
            prompt, prompt_name: as for `embed`.
            batch_size: as for `embed`.

        Returns:
            The vectors, and the indices of truncated texts.
        """
        embedding = self.embedding if pooling is None else replace(self.embedding, pooling=pooling)
        return embed(
            self.module,
            self.tokenizer,
            texts,
            embedding=embedding,
            prompt=embedding.prompt(prompt, prompt_name),
            normalize=embedding.similarity == "cosine" if normalize is None else normalize,
            batch_size=batch_size,
        )

    def see(self, text: str) -> Alignment:
        """Attention between the words of a text.

        Args:
            text: one or a few sentences.

        Returns:
            The weights of all layers and heads between words, those of the kind "encoder".

        Raises:
            DataError: a text without tokens, or longer than the model's maximum length.
        """
        check_texts([text])
        return look_within(self.module, self.tokenizer, self.tokenizer.encode(text, marks=True))

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
        ids = self.tokenizer.encode(text, marks=True)
        return view_within(self.module, self.tokenizer, ids, grid=grid, top=top, title=text)

    def extra_files(self) -> Mapping[str, bytes]:
        """The pooling and prompts, as the sentence-transformers package writes them."""
        return layout_files(self.embedding, self.module.config.embed_dim)

    def read_extras(self, folder: Path) -> None:
        """Read pooling and prompts from a folder in the layout of sentence-transformers."""
        layout = layout_of(folder)
        if layout is not None:
            self.embedding = layout.embedding
