"""The function that makes a page."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from attn.viewer import encoding
from attn.viewer.content import Live
from attn.viewer.facts import Facts
from attn.viewer.page import Page
from attn.viewer.rows import Rows, of_array
from attn.viewer.summary import Plan, summarize

FULL = 512  # tokens up to which the rows of all queries are stored
_STORED = 3_900_000  # bytes that the largest weights of a longer text may take, in base64
_MOST_KEYS = 64
_LONGEST = 65_536  # keys are stored in 16 bits


def show(
    tokens: Sequence[str],
    weights: Sequence[Any] | np.ndarray,
    *,
    title: str = "What the model attends to",
    padding: int = 0,
    residual: bool = True,
    prediction: Mapping[str, float] | None = None,
    effect: Any = None,
    effect_of: str = "the prediction",
    queries: Sequence[int] = (),
    precision: encoding.Precision = "uint8",
    layer: int = 0,
    head: int | None = None,
    notes: Sequence[str] = (),
    live: Live | None = None,
) -> Page:
    """Makes a page of the attention of one text to itself.

    Up to 512 tokens the weights of all queries are stored. Of a longer text the largest weights of each query are, at most 64
    and as many as fit into 3.9 MB, and all weights of `queries`. Memory is linear in T for a longer text, if the layers are
    `Rows`.

    Args:
      tokens: the T tokens, as they are shown. They are escaped.
      weights: for each layer, an array `[N, T, T]` (heads, queries, keys) or `[1, N, T, T]` of any real dtype, or a `Rows` that
        reads some queries at a time. An array `[L, N, T, T]` is L layers. N may differ from layer to layer.
      title: the heading.
      padding: how many of the last tokens are padding. They are shown as one token: the weights of its columns are added up,
        and its row is the mean of theirs.
      residual: whether each layer has a residual connection: the rollout then uses (A + I) / 2 in place of A.
      prediction: the probability of each label.
      effect: `[T]`, what each token contributed by another measure, such as gradient × input; signed.
      effect_of: what that is the effect on, for example "the logit of pos".
      queries: tokens of a long text whose weights are stored in full.
      precision: "uint8" stores each weight within 1/510 of the largest of its row; "float16" takes twice the room.
      layer, head: what is shown first; head None is the mean of the heads.
      notes: sentences that are shown above the tokens.
      live: a model for the page; see `attn.viewer.Live`.

    Returns:
      The page: `save` writes it, and a notebook shows it.

    Raises:
      ValueError: one line with the argument, its value or shape, and the rule.
      TypeError: an argument is unknown.
    """
    layers = _layers(weights)
    plan = _plan(layers, len(tokens), padding, tuple(queries), precision, residual)
    if not 0 <= layer < len(layers):
        raise ValueError(f"layer={layer} must be an integer from 0 to {len(layers) - 1}")
    if head is not None and not 0 <= head < layers[layer].heads:
        raise ValueError(f"head={head} must be an integer from 0 to {layers[layer].heads - 1}, a head of layer {layer}")
    found, rollout = summarize(layers, plan)
    shown = [*map(str, tokens[: plan.real]), *([f"padding × {padding}"] if padding else [])]
    facts = Facts(title, shown, plan, _prediction(prediction), _effect(effect, plan), effect_of, layer, head, tuple(notes))
    return Page(facts, found, rollout, live)


def _layers(weights: Any) -> list[Rows]:
    if len(weights) == 0:
        raise ValueError("weights has no layer")
    return [each if isinstance(each, Rows) else of_array(f"layer {index}", each) for index, each in enumerate(weights)]


def _plan(layers: list[Rows], length: int, padding: int, queries: tuple[int, ...], precision: Any, residual: bool) -> Plan:
    if length == 0:
        raise ValueError("tokens has no token")
    if length > _LONGEST:
        raise ValueError(f"tokens has {length} tokens: a page holds {_LONGEST} at most")
    for index, rows in enumerate(layers):
        if rows.length != length:
            raise ValueError(f"layer {index}: weights of {rows.length} tokens, but tokens has {length}")
    if not 0 <= padding < length:
        raise ValueError(f"padding={padding} must be an integer from 0 to {length - 1}")
    if precision not in encoding.PRECISIONS:
        raise ValueError(f"precision={precision!r} is not one of {', '.join(encoding.PRECISIONS)}")
    plan = Plan(length, padding, None, (), precision, residual)
    for query in queries:
        if not 0 <= query < plan.shown:
            raise ValueError(f"queries={query} must be from 0 to {plan.shown - 1}: the page has {plan.shown} tokens")
    if plan.shown <= FULL:
        return plan
    size = 3 if precision == "uint8" else 4  # bytes of a weight and its key
    fit = int(_STORED * 0.75 / (size * plan.shown * sum(rows.heads for rows in layers)))
    return plan._replace(top_keys=min(max(fit, 1), _MOST_KEYS), queries=tuple(sorted(set(queries))))


def _prediction(prediction: Mapping[str, float] | None) -> dict[str, float]:
    found = {str(label): float(probability) for label, probability in (prediction or {}).items()}
    for label, probability in found.items():
        if not 0 <= probability <= 1.001:
            raise ValueError(f"prediction[{label!r}]={probability} is not a probability")
    return found


def _effect(effect: Any, plan: Plan) -> np.ndarray | None:
    """The effect of each token of the page, `[n]`: that of the padding is added up."""
    if effect is None:
        return None
    found = np.asarray(effect, np.float64)
    if found.shape != (plan.length,) or not np.isfinite(found).all():
        raise ValueError(f"effect {found.shape} must be {plan.length} finite numbers, one for each token")
    return np.concatenate([found[: plan.real], [found[plan.real :].sum()]]) if plan.padding else found
