"""A plugin: `--fail-slower-than=SECONDS` fails a session in which a setup, a test or a teardown takes longer, and names it."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fail-slower-than", type=float, metavar="SECONDS", help="the longest that a phase of a test may take")


def pytest_configure(config: pytest.Config) -> None:
    limit = config.getoption("--fail-slower-than")
    if limit is not None and not hasattr(config, "workerinput"):  # a worker of xdist reports to its controller
        config.pluginmanager.register(SlowTests(limit))


class SlowTests:
    """Collects the phases that took longer than the limit."""

    def __init__(self, limit: float):
        self._limit = limit
        self._slow: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.duration > self._limit:
            self._slow.append(f"TOO SLOW {report.nodeid}: its {report.when} took {report.duration:.1f} s, > {self._limit:g} s")

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self._slow and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for line in self._slow:
            terminalreporter.write_line(line, red=True)
