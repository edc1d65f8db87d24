"""Sequence to sequence: encoders, decoders that attend to what the encoder has made, and decoding.

Both models have the same methods, for a source `[*B, S]` and a target `[*B, U]` of token ids:

    model(source, target)                          the logits of every target token, given those before it: `[*B, U, C]`
    model.encode(source)                           the memory: all that the decoder reads of the source
    model.start(memory, length)                    the decoder's state before the first of at most `length` tokens
    model.step(memory, state, token, index)        the state after a token, and the logits of the next one: `[*B, C]`
    model.alignment(source, target)                for each layer of the decoder, its weights over the source `[*B, N, U, S]`

`greedy` and `beam` decode with `start` and `step`, so each token is computed once.
"""

from typing import TYPE_CHECKING

from attn._lazy import lazy_attributes

if TYPE_CHECKING:
    from attn.models.seq2seq.decoding import Decoded, beam, greedy
    from attn.models.seq2seq.recurrent import RecurrentConfig, RecurrentSeq2Seq
    from attn.models.seq2seq.transformer import TransformerConfig, TransformerSeq2Seq

__all__ = ["Decoded", "RecurrentConfig", "RecurrentSeq2Seq", "TransformerConfig", "TransformerSeq2Seq", "beam", "greedy"]

_FILES = {
    "decoding": ("Decoded", "beam", "greedy"),
    "recurrent": ("RecurrentConfig", "RecurrentSeq2Seq"),
    "transformer": ("TransformerConfig", "TransformerSeq2Seq"),
}
__getattr__, __dir__ = lazy_attributes(
    __name__, {name: f"attn.models.seq2seq.{file}" for file, names in _FILES.items() for name in names}
)
