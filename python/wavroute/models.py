"""Models on disk, and their tokenizers."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from torch import Tensor

from wavroute._library import ops
from wavroute.nn.decoder import Decoder


class Tokenizer:
    """A tokenizer.json, or the folder that holds it: what docs/tokenizers.md says is read.

    Errors: ValueError for a file that can't be read.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        #: One more than the largest id.
        self.vocab_size: int = ops.tokenizer_size(self.path)

    def encode(self, text: str) -> list[int]:
        """The ids of a text. Errors: ValueError for a character that the vocabulary lacks."""
        return ops.tokenizer_encode(self.path, text)

    def decode(self, ids: Iterable[int] | Tensor) -> str:
        """The text of the ids; U+FFFD for bytes that are no character."""
        given = ids.flatten().tolist() if isinstance(ids, Tensor) else list(ids)
        return bytes(ops.tokenizer_decode(self.path, given).tolist()).decode(errors="replace")

    def __repr__(self) -> str:
        return f"Tokenizer({self.path!r}, vocab_size={self.vocab_size})"


def load(run: str | os.PathLike[str], checkpoint: str | int = "") -> Decoder:
    """The model of a run folder (its newest checkpoint; checkpoint: "best" or a step), of a
    checkpoint folder, or of a Hugging Face Llama folder: in float32, in evaluation mode, with its
    ``tokenizer`` where the folder has one.

    Errors: ValueError where there is no model that can be read.
    """
    path = os.fspath(run)
    if not Path(path).exists():
        raise ValueError(f"expected a run, checkpoint or model folder, given {path}, "
                         "where nothing is")
    description, values = ops.load_decoder(path, str(checkpoint))
    model = Decoder.described(description, values).eval()
    file = Path(model.folder) / "tokenizer.json"
    if file.is_file():
        model.tokenizer = Tokenizer(file)
    return model
