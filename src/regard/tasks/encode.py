"""A published encoder as one object: what `regard.load` gives for BERT and its kin."""

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
    """A model that reads whole texts, with its tokenizer, and what the two can do.

    Args:
        module: the torch module; `module(tokens, lengths)` gives named results, `hidden` and `logits` among them.
        tokenizer: of the model; None if its folder has none, and then only the module can be used.
        config: what else is known of it, such as config.json's fields under "published".
        embedding: how texts become vectors, if the checkpoint says it.
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
        """How texts become vectors unless it is said: as the checkpoint says, or by the mean."""
        return self.embedding.pooling

    @property
    def prompts(self) -> Mapping[str, str]:
        """What the checkpoint may put before texts, by name."""
        return self.embedding.prompts

    def fill(self, texts: Sequence[str], *, top: int = 5, batch_size: int = 32) -> list[Filling]:
        """The most probable words for the masks of texts; `str` of one is the text with the best.

        Args:
            texts: each with at least one mask, which is written as `.tokenizer.roles["mask"]` says.
            top: words for each mask.
            batch_size: texts that run together.

        Returns:
            A filling for each text, in order, with `.text` and `.places`.

        Raises:
            UnsupportedError: a model without a masked-word head, or a vocabulary without a mask.
            DataError: something else than a list of texts, or a text without a mask, or too long.
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
        """A vector for each text.

        Args:
            texts: any texts; what a model cannot read of a long one is cut.
            pooling: "mean", "max", "cls", "mean_sqrt_len_tokens", "weightedmean" or "lasttoken", or several joined by
                "+"; as the checkpoint says by default, or else the mean.
            normalize: whether vectors have length 1; by default they have, unless the checkpoint compares its vectors
                by something else than the cosine.
            prompt: what stands before each text, such as "query: "; "" for nothing.
            prompt_name: one of `.prompts`, as the checkpoint names them; by default the one that it says, or else none.
            batch_size: texts that run together.

        Returns:
            (texts, D).

        Raises:
            ConfigError: an unknown pooling or prompt.
            DataError: something else than a list of texts, or a text without tokens.
        """
        how = {"pooling": pooling, "normalize": normalize, "prompt": prompt, "prompt_name": prompt_name}
        return self.embedded(texts, **how, batch_size=batch_size).vectors

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
        """The same as `embed`, and which texts were cut.

        Args:
            texts: as for `embed`.
            pooling: as for `embed`.
            normalize: as for `embed`.
            prompt, prompt_name: as for `embed`.
            batch_size: as for `embed`.

        Returns:
            The vectors, and the numbers of the texts that were cut, from 0.
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
        """What each word of a text attends to.

        Args:
            text: one or a few sentences.

        Returns:
            The weights of all layers and heads between words, those of the kind "encoder".

        Raises:
            DataError: a text that is longer than the model reads, or has no tokens.
        """
        check_texts([text])
        return look_within(self.module, self.tokenizer, self.tokenizer.encode(text, marks=True))

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
        ids = self.tokenizer.encode(text, marks=True)
        return view_within(self.module, self.tokenizer, ids, grid=grid, top=top, title=text)

    def extra_files(self) -> Mapping[str, bytes]:
        """The pooling and prompts, as the sentence-transformers package writes them."""
        return layout_files(self.embedding, self.module.config.embed_dim)

    def read_extras(self, folder: Path) -> None:
        """Read how texts become vectors, where the folder says it as the sentence-transformers package does."""
        layout = layout_of(folder)
        if layout is not None:
            self.embedding = layout.embedding
