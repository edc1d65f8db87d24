"""The points of a sweep against lists that were written by hand, and the names of its trials."""

from pathlib import Path
from typing import Any

import pytest
import tiny

from experiments import settings
from experiments.errors import UsageError
from experiments.sweeps import grid_flags, groups, points, slots, trials
from experiments.sweeps.points import crossed, grid, log_uniform, random, seeds, uniform, zipped
from experiments.sweeps.trials import Trial


def base(**changes: Any) -> dict[str, Any]:
    return settings.flatten(settings.load_page("transformer", "verdicts")) | {
        name.replace("__", "."): value for name, value in changes.items()
    }


def make(listed: list[dict[str, Any]], **changes: Any) -> list[Trial]:
    return trials.make(base(**changes), listed, lambda config: tiny.corpus())


def test_grid_zipped_seeds_and_crossed():
    assert grid({"model.num_heads": [1, 2]}, seed="0..1") == [
        {"model.num_heads": 1, "seed": 0},
        {"model.num_heads": 1, "seed": 1},
        {"model.num_heads": 2, "seed": 0},
        {"model.num_heads": 2, "seed": 1},
    ]
    pairs = zipped({"model.num_heads": (1, 2), "model.key_dim": (32, 16)})
    assert pairs == [{"model.num_heads": 1, "model.key_dim": 32}, {"model.num_heads": 2, "model.key_dim": 16}]
    assert seeds("0..1,7") == [{"seed": 0}, {"seed": 1}, {"seed": 7}]
    assert crossed(seeds("3"), pairs) == [{"seed": 3, **pairs[0]}, {"seed": 3, **pairs[1]}]
    assert crossed() == [{}]


def test_random_points_stay_when_there_are_more():
    fields = {"learning_rate": log_uniform(1e-4, 1e-2), "model.dropout_rate": uniform(0, 0.5), "batch_size": [16, 32, 64]}
    few, many = random(fields, n=3, seed=1), random(fields, n=50, seed=1)
    assert many[:3] == few
    assert all(1e-4 <= p["learning_rate"] <= 1e-2 and 0 <= p["model.dropout_rate"] <= 0.5 for p in many)
    assert {p["batch_size"] for p in many} == {16, 32, 64}
    assert sum(p["learning_rate"] < 1e-3 for p in many) in range(15, 36)  # half of them: uniform in the logarithm
    assert random(fields, n=3, seed=2) != few
    assert [p["learning_rate"] for p in random({"learning_rate": log_uniform(1e-4, 1e-2)}, n=3, seed=1)] == [
        p["learning_rate"] for p in few
    ]
    assert sorted(p["seed"] for p in random({"seed": range(5)}, n=5, seed=0)) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: grid(seed=[]), "the field seed has no values"),
        (lambda: grid(seed=3), "seed=3 must be a list of values, or a text with integers such as 3"),
        (lambda: grid({"optimizer": "sgd"}), "optimizer='sgd' must be a list of values"),
        (lambda: grid({"seed": [1]}, seed=[2]), "the field seed is given twice"),
        (lambda: zipped(seed=[1, 2], epochs=[3]), "zipped.. needs as many values .*, not 2 of seed, 1 of epochs"),
        (lambda: crossed(seeds("0"), seeds("1")), "the field seed is set by two of the sources"),
        (lambda: random({"seed": [1, 2]}, n=3, seed=0), "random.. found no more than 2 different points of 3"),
        (lambda: seeds("4..2"), "seed='4..2' must be a list"),
    ],
)
def test_wrong_helpers(wrong, message: str):
    with pytest.raises(UsageError, match=message):
        wrong()


def test_grid_flags():
    assert grid_flags.read(["model.num_heads=1,2", "seed=0..1"]) == crossed(grid({"model.num_heads": [1, 2]}), seeds("0..1"))
    assert grid_flags.read(["model.num_heads, model.key_dim=1:4, 2:2"]) == zipped(
        {"model.num_heads": [1, 2], "model.key_dim": [4, 2]}
    )
    assert grid_flags.read(["seed=0..2,7"]) == seeds("0..2,7")
    values = {
        "learning_rate=1e-3,0.5": [1e-3, 0.5],
        "model.positions=none,rotary": ["none", "rotary"],
        "patience=None,3": [None, 3],
        "model.mask_padding=True,False": [True, False],
        "model.output_dims=(16,),(16,20)": [(16,), (16, 20)],
        "init_from=12,None": ["12", None],
    }
    for text, expected in values.items():
        assert grid_flags.read([text]) == [{text.partition("=")[0]: value} for value in expected]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed", "--grid seed must be FIELD=VALUE,VALUE,…, or FIELD,FIELD=VALUE:VALUE,… for fields that go together"),
        ("=1", "--grid =1 must be FIELD"),
        ("seed=", "--grid seed= must be FIELD"),
        ("seed,=1:2", "--grid seed,=1:2 must be FIELD"),
        ("sede=1", "--grid sede=1: config.sede is not a field of the config; did you mean config.seed?"),
        ("seed,epochs=1:2,3", "--grid seed,epochs=1:2,3: 3 must have 2 values, one for each field"),
        ("seed=3..1", "--grid seed=3..1: 3..1 must be integers such as 3"),
    ],
)
def test_wrong_grid_flags(text: str, message: str):
    with pytest.raises(UsageError) as error:
        grid_flags.read([text])
    assert str(error.value).startswith(message)


def test_a_name_is_what_determines_the_result():
    [plain] = make([{}])
    free = {"devices": 1, "steps_per_call": 3, "runs_per_call": 2, "checkpoint_every": 7, "data__dir": "/elsewhere"}
    for field, value in free.items():
        assert make([{}], **{field: value})[0].name == plain.name
    other = {"seed": 1, "epochs": 3, "learning_rate": 0.1, "model__num_heads": 4, "patience": 2, "label_smoothing": 0.1}
    names = {make([{}], **{field: value})[0].name for field, value in other.items()}
    assert len(names | {plain.name}) == len(other) + 1
    assert make([{"seed": 0, "learning_rate": 3e-3}])[0].name == plain.name  # what is written, not where
    assert make([{"learning_rate": 1}])[0].name == make([{"learning_rate": 1.0}])[0].name
    assert trials.name_of(plain.config(), "another corpus") != plain.name


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        ([], "the sweep is empty: sweep() of the config file yields no point"),
        ([3], "point 1 is 3: it must be a dict such as {'seed': 1}"),
        ([{}, {"modle.num_heads": 4}], "point 2 (modle.num_heads=4): config.modle.num_heads is not a field of the config; did"),
        (
            [{"seed": 0}, {"model.num_heads": 0, "seed": 1}],
            "point 2 (model.num_heads=0, seed=1): config.model.num_heads=0 must",
        ),
        ([{"seed": 0.5}], "point 1 (seed=0.5): config.seed=0.5 must be an integer from 0"),
        ([{"weight_decay": 0.1}], "point 1 (weight_decay=0.1): config.weight_decay=0.1 must be 0 with optimizer=keras_adam"),
        (
            [{"model.positions": "rotary", "model.key_dim": 3}],
            "point 1 (model.positions=rotary, model.key_dim=3): config.model: ",
        ),
        ([{"seeds": "0..3"}], "point 1 (seeds=0..3): config.seeds makes several runs of one; a point of a sweep has a seed"),
        ([{"seed": 1}, {}, {"seed": 1}], "point 3 (seed=1) is the same trial as point 1 (seed=1)"),
        ([{}, {"seed": 0}], "point 2 (seed=0) is the same trial as point 1 (the config itself)"),
        ([{"devices": 1}, {"devices": 2}], "point 2 (devices=2) is the same trial as point 1 (devices=1): devices changes no"),
    ],
)
def test_points_that_are_refused(listed: list[Any], message: str):
    with pytest.raises(UsageError) as error:
        make(listed)
    assert str(error.value).startswith(message)


def test_groups_share_a_program_and_the_slots():
    listed = crossed(grid({"model.num_heads": [1, 2]}), grid({"model.dropout_rate": [0.0, 0.1, 0.2]}), seeds("0..4"))
    made = make(listed)

    def sizes(slots: int, most: int) -> list[int]:
        found = groups.grouped(made, None, slots, most)
        assert sorted(trial.name for group in found for trial in group.trials) == sorted(trial.name for trial in made)
        for group in found:
            assert len({(t.fields["model.num_heads"], t.fields["model.dropout_rate"] > 0) for t in group.trials}) == 1
        return [len(group.trials) for group in found]

    assert sizes(1, 100) == [5, 10, 5, 10]
    assert sizes(1, 4) == [2, 3, 3, 3, 4, 2, 3, 3, 3, 4]
    assert sizes(10, 100) == [2, 3] * 6
    assert sizes(100, 100) == [1] * 30


def test_cores_are_divided(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(slots, "_accelerators", lambda: ("cpu", 1))
    monkeypatch.setattr(slots.os, "sched_getaffinity", lambda _: {4, 5, 6, 7, 9})
    monkeypatch.setattr(slots.devices, "cores", lambda: 5)
    assert slots.of_machine(None) == ([({}, None)], "1 process with all 5 cores")
    assert slots.of_machine(2) == ([({}, (4, 5)), ({}, (6, 7))], "2 processes, 2 cores each")
    assert slots.of_machine(6)[0] == [({}, (core,)) for core in (4, 5, 6, 7, 9, 4)]
    for jobs in (0, 1025):
        with pytest.raises(UsageError, match=f"^--jobs={jobs} must be an integer from 1 to 1024$"):
            slots.of_machine(jobs)


def test_accelerators_are_divided(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(slots, "_accelerators", lambda: ("gpu", 4))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    found, said = slots.of_machine(None)
    assert [slot.environment for slot in found] == [{"CUDA_VISIBLE_DEVICES": str(index)} for index in range(4)]
    assert said == "4 processes, 1 GPU device each"
    assert [slot.environment["CUDA_VISIBLE_DEVICES"] for slot in slots.of_machine(2)[0]] == ["0,1", "2,3"]
    shared = [slot.environment for slot in slots.of_machine(8)[0]]
    assert [one["CUDA_VISIBLE_DEVICES"] for one in shared] == list("01230123")
    assert {one["XLA_PYTHON_CLIENT_MEM_FRACTION"] for one in shared} == {"0.450"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,3,GPU-a,7")
    assert slots.of_machine(None)[0][2].environment == {"CUDA_VISIBLE_DEVICES": "GPU-a"}
    monkeypatch.setattr(slots, "_accelerators", lambda: ("tpu", 4))
    assert slots.of_machine(2)[0][1].environment == {
        "TPU_CHIPS_PER_PROCESS_BOUNDS": "1,2,1",
        "TPU_PROCESS_BOUNDS": "1,1,1",
        "TPU_VISIBLE_CHIPS": "2,3",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    }
    with pytest.raises(UsageError, match="--jobs must be at most 4, the TPU chips of this machine"):
        slots.of_machine(5)


def test_no_accelerator_is_looked_for_where_none_can_be(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setattr(slots.subprocess, "run", lambda *_, **__: pytest.fail("it looks"))
    assert slots._accelerators() == ("cpu", 1)


def test_the_helpers_are_what_a_page_imports():
    """The example in the module and in the documentation."""
    example = 'zipped({"model.num_heads": [1, 2, 4], "model.key_dim": [32, 16, 8]}), seeds("0..4")'
    assert example in (points.__doc__ or "")
    assert example in (Path(tiny.ROOT) / "docs" / "lab.md").read_text()
