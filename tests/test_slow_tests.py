"""The plugin that fails a session with a slow test, on sessions of its own."""

from pathlib import Path

import pytest
import slow_tests

pytest_plugins = ["pytester"]

TESTS = """
import time, pytest

@pytest.fixture
def slow_setup():
    time.sleep(0.3)

@pytest.fixture
def slow_teardown():
    yield
    time.sleep(0.3)

def test_setup(slow_setup): pass
def test_call(): time.sleep(0.3)
def test_teardown(slow_teardown): pass
def test_quick(): pass
"""


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch):
    """Runs TESTS with options, and without the plugins that this environment has beside xdist."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makeconftest(Path(slow_tests.__file__).read_text())
    pytester.makepyfile(TESTS)
    return lambda *options: pytester.runpytest(*options)


@pytest.mark.parametrize("xdist", [(), ("-p", "xdist.plugin", "-n1")], ids=["alone", "xdist"])
def test_slow_phases_fail_the_session_by_name(run, xdist: tuple[str, ...]):
    outcome = run("--fail-slower-than=0.2", *xdist)
    assert outcome.ret == pytest.ExitCode.TESTS_FAILED
    slow = [line for line in outcome.outlines if line.startswith("TOO SLOW")]
    assert [line.partition("took")[0].split("::")[1] for line in slow] == [
        f"test_{phase}: its {phase} " for phase in ("setup", "call", "teardown")
    ]
    assert slow[0].endswith(" s, > 0.2 s")
    outcome.assert_outcomes(passed=4)


@pytest.mark.parametrize("options", [(), ("--fail-slower-than=60",)])
def test_without_a_slow_phase_or_without_the_option_the_session_passes(run, options: tuple[str, ...]):
    outcome = run(*options)
    assert outcome.ret == pytest.ExitCode.OK
    assert "TOO SLOW" not in outcome.stdout.str()
