"""What the models have in common: the logits of a whole target, and dropout as a function for all parts of a model."""

from typing import Any

from flax import linen as nn

from attn.layers.dense import Dropout
from attn.models.seq2seq.tokens import or_unknown, shifted
from attn.shapes import Array, Tokens


class Drop:
    """The dropout of one call of a model. Each use takes another key of the rng named "dropout"."""

    def __init__(self, model: nn.Module | None = None, rate: float | Array = 0.0):
        """The dropout of a model; of none, its input unchanged."""
        self._model, self._layer = model, Dropout(rate, False, parent=None)

    def __call__(self, x: Array) -> Array:
        if self._model is None:
            return x
        return self._layer.apply({}, x, rngs={"dropout": self._model.make_rng("dropout")})  # type: ignore[return-value]

    def __repr__(self) -> str:
        return "dropout"  # as `nn.tabulate` shows an input of a layer


KEPT = Drop()


class Seq2Seq(nn.Module):
    """A model of pairs, without its encoder and decoder.

    Attributes:
      config: the architecture.
    """

    config: Any

    def __call__(
        self,
        source: Tokens,
        target: Tokens | None = None,
        *,
        deterministic: bool = True,
        dropout_rate: Array | None = None,
    ) -> Array:
        """The logits of every target token, given those before it.

        Args:
          source: integers `[*B, S]`, padded behind the tokens with 0.
          target: integers `[*B, U]`. None stands for one token that is not known.
          deterministic: False applies dropout, and needs the rng named "dropout".
          dropout_rate: a scalar array in place of the config's rate, without effect if that is 0.

        Returns:
          Logits `[*B, U, C]`, float32.
        """
        rate = self.config.dropout_rate
        drop = KEPT if deterministic or rate == 0 else Drop(self, rate if dropout_rate is None else dropout_rate)
        return self._taught(self._encode(source, drop), shifted(or_unknown(target, source)), drop)

    def encode(self, source: Tokens) -> Any:
        """The memory of a source `[*B, S]`."""
        return self._encode(source, KEPT)

    def _encode(self, source: Tokens, drop: Drop) -> Any:
        """The memory of a source `[*B, S]`."""
        raise NotImplementedError

    def _taught(self, memory: Any, inputs: Tokens, drop: Drop) -> Array:
        """The logits `[*B, U, C]` behind each of the decoder's inputs `[*B, U]`."""
        raise NotImplementedError
