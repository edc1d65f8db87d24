"""How many heads: multi_head and the transformer on IMDB, at a constant total width and at a constant width of a head.

python -m experiments sweep plan --config=configs/head_ablation.py --sweepdir=runs/head_ablation
python -m experiments sweep run  --config=configs/head_ablation.py --sweepdir=runs/head_ablation --grid seed=0..4

14 shapes, with five seeds each: docs/head-ablation has their rows and what was found. With these two flags more,
they count as done: --ledger=docs/head-ablation/runs --ledger=docs/reproduction/runs. The second and the ninth are the models of
the pages multi_head and transformer.
"""

from configs import multi_head, transformer
from experiments.sweeps.points import zipped


def get_config(data: str = "imdb"):
    return transformer.get_config(data)


def sweep():
    """The shapes; the blog's multi_head has a total width of 4, and its transformer is 2 heads of 16."""
    ours, other = (page.get_config("imdb").model.to_dict() for page in (transformer, multi_head))
    differing = {f"model.{field}": value for field, value in other.items() if value != ours[field]}
    yield from (differing | point for point in at_width(4, 1, 2, 4) + at_width(16, 1, 2, 4, 8))
    yield from at_width(32, 1, 2, 4, 8)
    yield from zipped({"model.num_heads": (1, 4, 8), "model.key_dim": (16, 16, 16)})  # 2 heads of 16 are above


def at_width(width: int, *heads: int) -> list[dict[str, int]]:
    """Points with heads whose sizes add up to a width."""
    return zipped({"model.num_heads": heads, "model.key_dim": [width // count for count in heads]})
