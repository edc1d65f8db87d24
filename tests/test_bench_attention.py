"""The benchmark of the operator: every contender steps, at tiny sizes, and the table names each."""

import sys

import pytest

from scripts import attention_contenders as contenders
from scripts import bench_attention
from scripts.attention_contenders import Sizes

pytestmark = pytest.mark.usefixtures("fast_compilation")


@pytest.mark.usefixtures("torch")  # whose import takes as long as the rest
def test_the_table_has_a_row_for_every_contender(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bench", "--workloads", "2,2,16,8", "--rounds", "1"])
    monkeypatch.setattr(bench_attention.devices, "start", lambda: None)
    bench_attention.main()
    rows = [line.split("|")[1:4] for line in capsys.readouterr().out.splitlines() if line.startswith("| 2,2,16,8")]
    names = [name.strip() for _, name, _ in rows]
    assert names[:5] == ["ours, sharded", "ours", "dense, sharded", "dense", "jax.nn, sharded"]
    assert all(float(milliseconds) > 0 for *_, milliseconds in rows)


def test_contenders_of_an_accelerator_step_in_half_precision():
    """On a CPU only ours are there."""
    steps = contenders.on_accelerator(Sizes(1, 2, 16, 8), "bfloat16")
    assert set(steps) == {"ours", "ours, chunked", "ours, ALiBi"}
    for step in steps.values():
        step()


@pytest.mark.parametrize("workload", ["1,2,3", "1,2,x,4", "0,2,16,8"])
def test_a_workload_that_is_none_is_refused(workload, capsys):
    with pytest.raises(SystemExit):
        bench_attention.parse(["--workloads", workload])
    assert "must be four positive numbers, B,N,T,H" in capsys.readouterr().err
