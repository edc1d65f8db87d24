"""The HTML of a page. Every text is escaped here, and nothing else writes HTML from one."""

from html import escape

import numpy as np

from attn.viewer import picture
from attn.viewer.content import Content
from attn.viewer.facts import visible

LEVELS = 9  # classes of the style: how dark a token is without JavaScript


def page(page: Content, policy: str, style: str, script: str, data: str) -> str:
    """The whole document."""
    facts = page.facts
    said = " · ".join(f"{_text(label)} {probability:.3f}" for label, probability in facts.prediction.items())
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">
<title>{_text(facts.title)}</title><style>{style}</style></head><body>
<header><h1>{_text(facts.title)}</h1>
{_live(page)}<p id="prediction" aria-live="polite">{said}</p>
<ul id="notes">{_notes(page)}</ul></header>
<main>
<form id="choice" hidden></form>
<div class="columns"><div>
<section aria-labelledby="h1"><h2 id="h1">Tokens</h2>
<p id="legend">The darker a token, the more attention it receives.</p>
<div id="tokens" role="group" aria-label="Tokens">{_tokens(page)}</div></section>
<section id="detail" aria-live="polite" hidden></section>
<section id="disagree" hidden></section></div><div>
<section aria-labelledby="h2"><h2 id="h2">Heat map</h2>
<figure id="heat">{picture.heat(page)}<figcaption id="caption">A token's row shows what it looks at.</figcaption></figure>
<p><button id="export" type="button" hidden>Save as SVG</button></p></section>
<section aria-labelledby="h3"><h2 id="h3">Entropy of each head</h2>
<div class="scroll" id="entropy" tabindex="0" role="region" aria-label="Entropy of each head">{_entropy(page)}</div>
<p class="quiet" id="nats">The mean over the tokens, in nats: 0 looks at one token, {np.log(facts.plan.length):.2f} at all
{facts.plan.length} alike.</p></section>
</div></div>
<section aria-labelledby="h4"><h2 id="h4">How to read this page</h2>{_reading(page)}</section>
</main><script type="application/json" id="data">{data}</script><script>{script}</script></body></html>
"""


def _text(text: str) -> str:
    return escape(visible(text))


def _live(page: Content) -> str:
    if page.live is None:
        return ""
    label = "Type a text: the model in this page reads it at once."
    return f'<label for="text">{label}</label><textarea id="text" rows="3">{escape(page.live.text)}</textarea>\n'


def _notes(page: Content) -> str:
    typed = "".join(f'<li class="typed">{_text(note)}</li>' for note in (page.live.notes if page.live else ()))
    return "".join(f"<li>{_text(note)}</li>" for note in page.facts.notes) + typed


def _tokens(page: Content) -> str:
    levels = np.rint(LEVELS * picture.shares(page)).astype(int)
    drawn = [
        f'<button type="button" class="s{level}" tabindex="-1">{_text(token)}</button>'
        for token, level in zip(page.facts.tokens, levels, strict=True)
    ]
    return " ".join(drawn)


def _entropy(page: Content) -> str:
    heads = max(len(layer.entropy) for layer in page.layers)
    head = "".join(f'<th scope="col">head {index}</th>' for index in range(heads))
    rows = []
    for index, layer in enumerate(page.layers):
        cells = "".join(f"<td>{mean:.2f}</td>" for mean in layer.entropy.mean(1))
        rows.append(f'<tr><th scope="row">layer {index}</th>{cells}</tr>')
    return f"<table><thead><tr><td></td>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _reading(page: Content) -> str:
    plan = page.facts.plan
    stored = "8-bit numbers, so that a weight is off by at most 1/510 of the largest of its row"
    if plan.precision == "float16":
        stored = "16-bit floating-point numbers"
    said = [
        "A weight says how much of one token's value enters another token's output in one head. It does not say what the "
        "prediction depends on.",
        "Received attention is the mean of a token's weight over all tokens that look at it.",
        "Rollout multiplies the layers, each the mean of its heads"
        + (" and half of it the residual connection" if plan.residual else "")
        + ": from which first tokens a position of the last layer is mixed.",
    ]
    if page.facts.effect is not None or page.live:
        said.append(
            f"Gradient × input is the change of {page.facts.effect_of} if a token's embedding grew, per part that it "
            "grows: plus speaks for the predicted class, minus against it. It too is no proof of a cause."
        )
    if page.live:
        said.append("Weights are computed in this page, in double precision, from the stored parameters.")
    else:
        said.append(f"The weights are stored as {stored}. Entropy and received attention were computed before.")
    if plan.top_keys:
        said.append(f"Of each query the {plan.top_keys} largest weights are stored; smaller ones are drawn as 0.")
    if (page.live is not None and not page.live.model["masked"]) or plan.padding:
        which = "Some of the last" if page.live else f"The last {plan.padding}"
        said.append(
            f"{which} positions are padding, which this model reads. They are shown as one token: its weights "
            "are added up, and its row is the mean of theirs."
        )
    return "".join(f"<p>{escape(sentence)}</p>" for sentence in said)
