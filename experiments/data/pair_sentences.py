"""Small sentences in English and in Chinese: "Tom chase Jerry" and 汤姆 追逐 杰瑞.

English verbs are not inflected here. Chinese puts time and place before the verb, so the words do not stand in the same order:
"Tom chase Jerry in the park today" is 汤姆 今天 在 公园 追逐 杰瑞.
"""

import numpy as np

SIZES = {"train": 4_000, "validation": 500, "test": 500}
ASKED = ("Tom chase Jerry", "汤姆 追逐 杰瑞")  # in the test split, so that no model is trained on it
Pair = tuple[str, str]

NAMES = {
    "Tom": "汤姆", "Jerry": "杰瑞", "Mary": "玛丽", "Anna": "安娜",
    "Peter": "彼得", "Alice": "爱丽丝", "David": "大卫", "Lucy": "露西",
}  # fmt: skip
NOUNS = {"cat": "猫", "dog": "狗", "mouse": "老鼠", "bird": "鸟", "child": "孩子", "teacher": "老师"}
ADJECTIVES = {"small": "小", "big": "大", "old": "老", "white": "白"}
VERBS = {
    "chase": "追逐", "see": "看见", "like": "喜欢", "help": "帮助",
    "hear": "听见", "find": "找到", "know": "认识", "follow": "跟随",
}  # fmt: skip
TIMES = {"": "", "today": "今天", "yesterday": "昨天", "tonight": "今晚", "again": "又"}
PLACES = {"": "", "in the park": "在 公园", "at school": "在 学校", "at home": "在 家"}
DENIALS = {"": "", "not": "不"}


def pairs(seed: int = 0) -> dict[str, list[Pair]]:
    """Returns the pairs of the splits of SIZES by name. No pair occurs twice."""
    rng = np.random.default_rng(seed)
    found: dict[Pair, None] = {}
    while len(found) < sum(SIZES.values()) - 1:
        pair = _pair(rng)
        if pair != ASKED:
            found[pair] = None
    every, splits, start = list(found), {}, 0
    for name, size in SIZES.items():
        splits[name] = every[start : start + size]
        start += size
    splits["test"].append(ASKED)
    return splits


def _pair(rng: np.random.Generator) -> Pair:
    def one_of(words: dict[str, str]) -> tuple[str, str]:
        return list(words.items())[rng.integers(len(words))]

    def somebody() -> tuple[str, str]:
        if rng.random() < 0.5:
            return one_of(NAMES)
        noun, adjective = one_of(NOUNS), one_of(ADJECTIVES | {"": ""})
        return f"the {adjective[0]} {noun[0]}", f"{adjective[1]} {noun[1]}"

    subject, other = somebody(), somebody()
    verb, denial, place, time = map(one_of, (VERBS, DENIALS, PLACES, TIMES))
    english = subject[0], denial[0], verb[0], other[0], place[0], time[0]
    chinese = subject[1], time[1], denial[1], place[1], verb[1], other[1]
    return _joined(english), _joined(chinese)


def _joined(parts: tuple[str, ...]) -> str:
    return " ".join(" ".join(parts).split())
