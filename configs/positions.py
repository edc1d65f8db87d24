"""How a transformer learns where a word is: no positions, two tables, and three ways to change attention itself.

python -m experiments sweep run --config=configs/positions.py:verdicts --sweepdir=runs/positions --grid seed=0..4
python -m experiments sweep run --config=configs/positions.py --sweepdir=runs/positions_imdb --grid seed=0..4

All else is as on the page transformer; "learned" is the page transformer_positional. With --ledger=docs/positions/runs, and
--ledger=docs/reproduction/runs for IMDB, the runs that are there count as done. docs/positions.md has the results.
"""

from configs import transformer
from experiments.sweeps.points import grid


def get_config(data: str = "imdb"):
    return transformer.get_config(data)


def sweep():
    """Without positions; learned (Gehring et al. 2017); sinusoidal (Vaswani et al. 2017); rotary; ALiBi; T5's biases."""
    yield from grid({"model.positions": ("none", "learned", "sinusoidal", "rotary", "alibi", "t5")})
