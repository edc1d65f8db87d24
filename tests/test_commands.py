"""The command line as a clumsy user meets it: one line, the right exit code, and nothing half written."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tiny

from experiments import quickstart, settings
from experiments.command_line import commands
from experiments.cost import dry_run
from experiments.data import imdb_location, verdicts
from experiments.errors import DataError
from experiments.machine import devices, processes
from experiments.machine.stopping import Stopped
from experiments.reproduction import reproduce
from experiments.storage import files, lock, run_folder
from experiments.training import build, train
from experiments.training.divergence import Diverged
from experiments.training.progress import Progress

FIELDS = (
    "the fields are seed, seeds, epochs, batch_size, patience, init_from, optimizer, learning_rate, schedule, warmup_steps, "
    "weight_decay, momentum, label_smoothing, devices, steps_per_call, runs_per_call, checkpoint_every, "
    "and those of config.data and config.model"
)
MODEL_FIELDS = ", ".join(field.removeprefix("model.") for field in settings.SEQ2SEQ_RULES if field.startswith("model."))
PAGES = {  # what a page may hold instead of a config, and what is said of it
    "int": ("def get_config(): return 3", "get_config() returned int: it must return a ConfigDict"),
    "nothing": ("def get_config(): pass", "get_config() returned NoneType: it must return a ConfigDict"),
    "syntax": ("def get_config(:", "--config={page} cannot be read: SyntaxError: invalid syntax (page.py, line 1)"),
    "no function": ("", "--config={page} cannot be read: AttributeError: module 'config_config' has no attribute 'get_config'"),
    "raises": ("def get_config(): raise ValueError('boo')", "--config={page}: ValueError: boo"),
    "imports": ("import nonesuch", "--config={page} cannot be read: ModuleNotFoundError: No module named 'nonesuch'"),
    "extra": (
        "from configs import transformer\ndef get_config(): c = transformer.get_config(); c.epoch = 3; return c",
        "config.epoch is not a field of the config; did you mean config.epochs?",
    ),
    "model": (
        "from ml_collections import ConfigDict\ndef get_config(): return ConfigDict({'model': 7})",
        "config.model is not a field of the config; the fields of config.model are " + MODEL_FIELDS,
    ),
}


def refused(capsys: pytest.CaptureFixture, arguments: list[str], code: int = 2) -> str:
    """The one line that a command ends with; it must have written nothing to stdout."""
    assert commands.main(arguments) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err.removeprefix("error: ").removesuffix("\n")


@pytest.fixture(autouse=True)
def untouched(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(build, "build_corpus", lambda config: pytest.fail("the data was read"))


@pytest.mark.parametrize(("arguments", "code"), [([], 2), (["help"], 0), (["-h"], 0), (["train", "--help"], 0)])
def test_usage(arguments: list[str], code: int, capsys: pytest.CaptureFixture):
    assert commands.main(arguments) == code
    out, err = capsys.readouterr()
    assert (out, err) == (commands.USAGE + "\n", "")
    assert all(f"\n  {name} " in out for name in commands.COMMANDS)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("trian", "'trian' is not a command: it must be one of prepare, .*report; did you mean train\\?"),
        ("--config=x", "'--config=x' is not a command"),
        ("train", "--workdir is missing: it must be the folder of the run"),
        ("train --workdir=W", "--config is missing: it must be a config file such as /.*/configs/single_head.py$"),
        ("train --config=configs/transformer.py", "--workdir is missing"),
        ("train PAGE --workdir=", "--workdir is missing"),
        ("train --config= --workdir=W", "--config= is not a file: it must be a config file"),
        ("train --config=nope.py --workdir=W", "--config=nope.py is not a file: it must be a config file"),
        ("train --config=/ --workdir=W", "--config=/ is not a file"),
        ("train PAGEwhat --workdir=W", "config.data.name='verdictswhat' must be one of imdb, verdicts"),
        ("train PAGE --workdir=W lr=3", "'lr=3' has no dashes: flags have the form --NAME=VALUE"),
        ("train lr=3 PAGE --workdir=W", "'lr=3' has no dashes"),
        ("train PAGE --workdir=W -", "'-' has no dashes"),
        ("train PAGE --workdir=W --wokdir=V", "--wokdir is not a flag of this command; did you mean --workdir\\?"),
        (
            "train PAGE --workdir=W --zzz",
            "--zzz is not a flag of this command; its flags are --config, --config.FIELD, --coordinator, --distributed, "
            "--dry_run, --num_processes, --process_id, --workdir$",
        ),
        ("train PAGE --workdir=W --epochs=3", "--epochs is not a flag of this command; did you mean --config.epochs\\?"),
        ("train PAGE --workdir=W --lr=3", "--lr is not a flag of this command; did you mean --config.learning_rate\\?"),
        ("quickstart --epochs=3", "--epochs is not a flag of this command; its flags are --workdir$"),
        ("train PAGE --workdir=W --config.epochs", "Missing value for flag --config.epochs"),
        ("train PAGE --workdir=W --config.=3", "config. is not a field of the config"),
        (
            "train PAGE --workdir=W --config.model=3",
            "config.model is not a field of the config; the fields of config.model are body, ",
        ),
        ("train PAGE --workdir=W --flagfile=/nope", ".*/nope"),
        ("train PAGE --workdir W --config.epochs abc", "config.epochs=abc must be an integer from 1 to 100000"),
        ("train --config.epochs=0 --workdir=W PAGE", "config.epochs=0 must be an integer"),
        ("train PAGE --workdir=W --config.epochs=3 --config.epochs=x=y", "config.epochs=x=y must be an integer"),
        ("evaluate", "--workdir is missing"),
        ("evaluate --workdir=W", "--workdir=W holds no run: config.json is missing"),
        ("evaluate --workdir=W --split=train", "--split=train must be validation or test"),
        ("evaluate --workdir=W test", "'test' has no dashes"),
        ("predict", "--workdir is missing"),
        ("predict --workdir=W", "--workdir=W holds no run"),
        ("evaluate --workdir=W --checkpoint=newest", "--checkpoint=newest must be last or best"),
        ("predict --workdir=W --checkpoint=", "--checkpoint= must be last or best"),
        ("predict a --workdir=W b", "predict reads one FILE, not 2: a b; to give a text itself, write --words='the text'"),
        ("predict --workdir=W --words=a b", "predict reads FILE b or --words, not both"),
        ("predict --workdir=W - --words=", "predict reads FILE - or --words, not both"),
        ("predict --workdir=W --show_text=perhaps", "--show_text=perhaps must be true or false$"),
        ("predict --workdir=W  -", "predict reads one FILE, not 2:  -; to give"),
        ("predict --workdir=W ", "FILE is empty: it must be a path$"),
        ("prepare --archive=", "--archive is empty: it must be a path$"),
        ("predict --workdir=W /", "FILE / cannot be read: Is a directory"),
        ("predict --workdir=W /nope", "FILE /nope cannot be read: No such file or directory; to give a text itself, write"),
        ("prepare --archiv=x", "--archiv is not a flag of this command; did you mean --archive\\?"),
        ("reproduce", "--workdir is missing"),
        ("reproduce --workdir=W --seeds=0", "--seeds=0 must be an integer from 2 to 1000"),
        ("reproduce --workdir=W --seeds=1", "--seeds=1 must be an integer from 2 to 1000"),
        ("reproduce --workdir=W --seeds=abc", "--seeds=abc must be an integer$"),
        (
            "train PAGE --workdir=W --coordinator=h:1",
            "--coordinator, .* go together: --num_processes and --process_id must be given",
        ),
        (
            "train PAGE --workdir=W --process_id=0",
            "--coordinator, .* together: --coordinator and --num_processes must be given",
        ),
        ("train PAGE --dry_run --workdir=", "--workdir is missing"),
        ("train --dry_run", "--config is missing"),
        ("train PAGE --dry_run --config.epochs=0", "config.epochs=0 must be an integer"),
        ("train PAGE --dry_run=maybe", "--dry_run=maybe must be true or false$"),
        ("train PAGE --workdir=W --distributed=2", "--distributed=2 must be true or false$"),
        ("quickstart again", "'again' has no dashes"),
        ("train PAGE --workdir=\udcff", r"--workdir=\\xff must be UTF-8$"),
        ("train --config=p\udcff.py --workdir=W", r"--config=p\\xff.py must be UTF-8$"),
        ("train PAGE --workdir=W --config.data.dir=\udcff", r"config.data.dir='\\udcff' must be a path in UTF-8, or None"),
        ("predict --workdir=W caf\u00e9\udcff", r"FILE=caf\u00e9\\xff must be UTF-8$"),
        ("prepare --archive=\udcff", r"--archive=\\xff must be UTF-8$"),
        ("prepare --data_dir=\udcff", r"--data_dir=\\xff must be UTF-8$"),
        ("reproduce --workdir=W --data_dir=\udcff", r"--data_dir=\\xff must be UTF-8$"),
    ],
)
def test_clumsy_lines(line: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    monkeypatch.chdir(tmp_path)
    arguments = [word.replace("PAGE", tiny.PAGE) for word in line.split(" ")]
    said = refused(capsys, arguments)
    assert re.match(message, said), said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("h 2 0", "--coordinator=h must be HOST:PORT, such as 10.0.0.1:12355"),
        ("h: 2 0", "--coordinator=h: must be HOST:PORT"),
        (":80 2 0", "--coordinator=:80 must be HOST:PORT"),
        ("h:0 2 0", "--coordinator=h:0 must be HOST:PORT"),
        ("h:65536 2 0", "--coordinator=h:65536 must be HOST:PORT"),
        ("http://h:80 2 0", "--coordinator=http://h:80 must be HOST:PORT"),
        ("::1:80 2 0", "--coordinator=::1:80 must be HOST:PORT"),
        ("h:80 0 0", "--num_processes=0 must be an integer from 1 to 65536$"),
        ("h:80 x 0", "--num_processes=x must be an integer from 1 to 65536$"),
        ("h:80 2 2", "--process_id=2 must be an integer from 0 to 1: --num_processes=2$"),
        ("h:80 2 -1", "--process_id=-1 must be an integer from 0 to 1"),
        ("h:80 2 0 --distributed", "--distributed must be left out: it asks the cluster"),
    ],
)
def test_a_process_that_is_told_nonsense(flags: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture):
    address, number, index, *more = flags.split()
    together = [f"--coordinator={address}", f"--num_processes={number}", f"--process_id={index}", *more]
    said = refused(capsys, ["train", tiny.PAGE, f"--workdir={tmp_path / 'run'}", *together])
    assert re.match(message, said), said


def test_dry_run_describes_the_run_and_trains_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    """Also of a folder that is in use, and without a folder."""
    called = []
    monkeypatch.setattr(dry_run, "describe", lambda config, workdir: called.append((config.epochs, workdir)) or "all of it")
    monkeypatch.setattr(train, "train", lambda *_: pytest.fail("it trains"))
    for workdir in ([f"--workdir={tmp_path}"], []):
        with lock.hold(tmp_path):
            assert commands.main(["train", tiny.PAGE, "--config.epochs=3", "--dry_run", *workdir]) == 0
        assert capsys.readouterr() == ("all of it\n", "")
    assert called == [(3, tmp_path), (3, None)]
    together = ["--coordinator=h:1", "--num_processes=2", "--process_id=0"]
    said = refused(capsys, ["train", tiny.PAGE, "--dry_run", *together])
    assert said.startswith("--dry_run and the flags of several processes exclude each other")


@pytest.mark.parametrize("address", ["localhost:1", "node-7.example.org:65535", "10.0.0.1:12355", "[::1]:80"])
def test_a_process_joins_before_the_devices_start(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    """One that is not the writer prints no result."""
    called = []
    monkeypatch.setattr(processes, "join", lambda *place: called.append(place))
    monkeypatch.setattr(processes, "is_writer", lambda: False)
    monkeypatch.setattr(devices, "start", lambda: called.append("start"))
    monkeypatch.setattr(train, "train", lambda *_: called.append("train"))
    page = ["train", tiny.PAGE, f"--workdir={tmp_path}"]
    assert commands.main([*page, f"--coordinator={address}", "--num_processes=3", "--process_id=2"]) == 0
    assert called == [(address, 3, 2), "start", "train"]
    assert commands.main([*page, "--distributed"]) == 0
    assert called[3:] == [(None, None, None), "start", "train"]
    assert commands.main(page) == 0
    assert called[6:] == ["start", "train"]
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("page", PAGES)
def test_pages_that_are_no_config(page: str, tmp_path: Path, capsys: pytest.CaptureFixture):
    file = tmp_path / "page.py"
    content, message = PAGES[page]
    file.write_text(content)
    said = refused(capsys, ["train", f"--config={file}", f"--workdir={tmp_path / 'run'}"])
    assert said == message.format(page=file)
    assert not (tmp_path / "run").exists()


def test_a_line_that_would_break_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture):
    """Control characters and bytes that are no UTF-8 are shown, not sent."""
    said = refused(capsys, ["train", tiny.PAGE, f"--workdir={tmp_path / 'run'}", "--config.a\n\x1b[2J\udcff=3"])
    assert said == "config.a\\n\\x1b[2J\\udcff is not a field of the config; " + FIELDS


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (DataError("IMDB archive x is truncated"), 4, "error: IMDB archive x is truncated\n"),
        (Diverged("epoch 3: loss nan", {}), 3, "error: epoch 3: loss nan\n"),
        (OSError(28, "No space left on device", "m"), 1, "error: [Errno 28] No space left on device: 'm'\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (
            Stopped(signal.SIGUSR1).saved(7),
            75,
            "error: stopped by SIGUSR1 after step 7, which is saved: the same command continues\n",
        ),
        (Stopped(signal.SIGINT), 130, "error: stopped by SIGINT: the same command goes on\n"),
    ],
)
def test_exit_codes(
    error: BaseException, code: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    def fail(*_: object):
        raise error

    monkeypatch.setattr(train, "train", fail)
    assert commands.main(["train", tiny.PAGE, f"--workdir={tmp_path}"]) == code
    assert capsys.readouterr() == ("", said)


def test_a_bug_keeps_its_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Only what the user can mend becomes one line."""
    monkeypatch.setattr(train, "train", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        commands.main(["train", tiny.PAGE, f"--workdir={tmp_path}"])


@pytest.mark.parametrize("archive", [b"", b"no archive", b"\x1f\x8b\x08\0\0\0\0\0"])
def test_a_bad_archive(archive: bytes, tmp_path: Path, capsys: pytest.CaptureFixture):
    (file := tmp_path / "a.tar.gz").write_bytes(archive)
    assert commands.main(["prepare", f"--archive={file}", f"--data_dir={tmp_path / 'data'}"]) == 4
    assert f"error: IMDB archive {file} is " in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [file]


def test_no_network_and_no_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    """Nor a run folder: neither training nor preparing leaves anything."""
    monkeypatch.undo()
    monkeypatch.setattr(imdb_location, "URL", "http://localhost:1/aclImdb_v1.tar.gz")
    monkeypatch.delenv(imdb_location.ARCHIVE_VARIABLE, raising=False)
    page = f"--config={tiny.ROOT / 'configs' / 'transformer.py'}"
    train_line = ["train", page, f"--workdir={tmp_path / 'run'}", f"--config.data.dir={tmp_path / 'data'}"]
    for arguments in (train_line, ["prepare", f"--data_dir={tmp_path / 'data'}"]):
        said = refused(capsys, arguments, code=4)
        assert said.startswith(
            f"no IMDB under {tmp_path / 'data'}, and http://localhost:1/aclImdb_v1.tar.gz cannot be downloaded"
        )
    assert not list(tmp_path.iterdir())


def fake_training(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Makes the quickstart's trainings and its questions instant; returns the labels of the runs as they are trained."""
    trained = []

    def fake(config: settings.Config, folder: Path, label: str, progress: Progress) -> dict:
        run_folder.refuse_other(folder, config)
        trained.append(label)
        folder.mkdir(parents=True, exist_ok=True)
        accuracy = 0.5 if config.model.positions == "none" else 0.9
        row = {"epoch": 1, "train_loss": 1, "train_accuracy": 1, "val_loss": 1, "val_accuracy": accuracy}
        (folder / "metrics.jsonl").write_text(json.dumps(row) + "\n")
        return {"test_accuracy": accuracy}

    monkeypatch.setattr(quickstart.train, "train", fake)
    monkeypatch.setattr(quickstart, "_ask", lambda folder, reviews: ["positive"] * len(reviews))
    return trained


def test_quickstart_starts_afresh_over_its_own_runs_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    """A finished run of another config is refused and kept."""
    kept, trained = tmp_path / "single_head-none", fake_training(monkeypatch)
    for data, code in (("imdb", 2), ("verdicts", 0)):
        kept.mkdir(exist_ok=True)
        files.write_json(kept / "config.json", settings.load_page("single_head", data).to_dict())
        files.write_json(kept / "result.json", {"old": True})
        assert commands.main(["quickstart", f"--workdir={tmp_path}"]) == code
        assert (kept / "result.json").exists() == (code == 2)
        assert trained == ([] if code else [model.name for model in quickstart.MODELS])
        assert ("holds a run of another config" in capsys.readouterr().err) == (code == 2)


def test_quickstart_says_what_each_model_can_reach_before_it_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    """And at the end what each says of three reviews, of which two are anagrams."""
    fake_training(monkeypatch)
    assert commands.main(["quickstart", f"--workdir={tmp_path}"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    for number, model in enumerate(quickstart.MODELS, start=1):
        before = next(index for index, line in enumerate(lines) if line.startswith(f"{number} of 6  {model.name}: "))
        learns = model.positions != "none"
        assert ("can learn" if learns else "must stay at 0.500") in lines[before]
        assert re.match(f" +accuracy {'0.900' if learns else '0.500'} on the test reviews", lines[before + 1])
        assert ("as it must be" in lines[before + 1]) == (not learns)
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    assert table[:3] == [
        ["model", "A", "B", "C", "test accuracy"],
        ["the writer's own verdict", "positive", "negative", "negative", ""],
        ["single_head without positions", "positive, right", "positive, wrong", "positive, wrong", "0.500"],
    ]
    assert len(table) == 8
    assert f"The curves are in {tmp_path / 'curves.png'}" in out
    assert (tmp_path / "curves.png").exists()


def test_quickstart_asks_about_a_review_and_its_anagram():
    (one, label), (two, other), (three, _) = quickstart.three_reviews(verdicts.reviews(0)["test"])
    assert sorted(one.replace(",", "").split()) == sorted(two.replace(",", "").split())
    assert (one != two, {label, other}) == (True, {0, 1})
    assert three not in (one, two)


def test_a_run_is_labelled_by_its_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    """And not by its body, which two pages have in common."""
    labels = []

    def fake(config: settings.Config, workdir: Path, label: str) -> dict:
        labels.append((label, config.model.body))
        return {"test_loss": 0.5, "test_accuracy": 0.75}

    monkeypatch.setattr(train, "train", fake)
    page = tiny.ROOT / "configs" / "transformer_positional.py"
    assert commands.main(["train", f"--config={page}:verdicts", f"--workdir={tmp_path}"]) == 0
    assert labels == [("transformer_positional", "transformer")]
    assert "Without positions" not in capsys.readouterr().out
    assert commands.main(["train", tiny.PAGE, f"--workdir={tmp_path}"]) == 0
    assert "\nWithout positions, no model exceeds 0.5 on this corpus" in capsys.readouterr().out
    for other in ("cnn", "ngram_attention"):  # which see the order of the words
        page = tiny.ROOT / "configs" / f"{other}.py"
        assert commands.main(["train", f"--config={page}:verdicts", f"--workdir={tmp_path}"]) == 0
        assert "Without positions" not in capsys.readouterr().out


def test_reproduce_is_given_its_flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    calls = []
    monkeypatch.setattr(reproduce, "reproduce", lambda *arguments: calls.append(arguments))
    assert commands.main(["reproduce", f"--workdir={tmp_path}", "--seeds=3"]) == 0
    assert commands.main(["reproduce", f"--workdir={tmp_path}", "--data_dir=/data", "--update_docs"]) == 0
    assert calls == [(tmp_path, 3, None, False), (tmp_path, 20, "/data", True)]


def test_outside_of_a_checkout(tmp_path: Path):
    """The folder of the package is run as a script, from another folder."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, str(tiny.ROOT / "experiments")]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    said = "error: python -m experiments runs in a checkout of the repository only: change to its folder first\n"
    assert (done.stdout, done.stderr, done.returncode) == ("", said, 1)


ENVIRONMENT = {"PYTHONPATH": str(tiny.ROOT), "PYTHONIOENCODING": "ascii", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}


def start(*arguments: str, **options) -> subprocess.Popen:
    environment = os.environ | ENVIRONMENT
    command = [sys.executable, "-m", "experiments", *arguments]
    return subprocess.Popen(command, cwd=tiny.ROOT, env=environment, stderr=subprocess.PIPE, **options)


def test_a_reader_that_goes_away_and_an_ascii_terminal(finished_run: Path):
    """`predict | head -1` and `--help` into a closed pipe end quietly, and no character ends a command."""
    with start("predict", f"--workdir={finished_run}", stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin and process.stdout and process.stderr
        process.stdin.write(b"the film was lovely\n" * 64)
        process.stdin.flush()
        assert process.stdout.readline().startswith(b'{"label"')
        process.stdout.close()
        process.stdin.write(b"the film was lovely\n" * 64)
        process.stdin.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0
    reading, writing = os.pipe()
    os.close(reading)
    with start("--help", stdout=writing) as process:
        os.close(writing)
        assert process.stderr and process.stderr.read() == b""
        assert process.wait() == 0
    with start("train", "--help", stdout=subprocess.PIPE) as process:
        assert process.stdout and b"VALUE \\u2026]" in process.stdout.read()


def test_a_run_of_two_devices_is_read_on_one(finished_run: Path):
    """As on a machine with fewer cores than the one that trained."""
    command = [sys.executable, "-m", "experiments", "predict", f"--workdir={finished_run}"]
    environment = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"} | ENVIRONMENT
    environment["JAX_NUM_CPU_DEVICES"] = "1"
    done = subprocess.run(command, cwd=tiny.ROOT, env=environment, input=b"the film\n", capture_output=True)
    assert (done.stderr, done.returncode) == (b"", 0)
    assert json.loads(done.stdout)["tokens"] == 3
    assert "× 2" in run_folder.read_result(finished_run)["device"]


def test_a_busy_folder_is_refused_before_jax_is_imported(tmp_path: Path):
    """Where Python's file names are ASCII, which it mends by starting again: with its own flags, and the bytes of the path."""
    environment = os.environ | {"PYTHONPATH": str(tiny.ROOT), "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    (workdir := tmp_path / "l\u00e4uft \u2014 schon").mkdir()
    command = [sys.executable, "-X", "importtime", "-m", "experiments", "train", tiny.PAGE, f"--workdir={workdir}"]
    with lock.hold(workdir):
        done = subprocess.run(command, cwd=tiny.ROOT, env=environment, capture_output=True)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.decode().splitlines()}
    assert "experiments.storage.lock" in imported
    assert not {"jax", "numpy", "ml_collections"} & imported
    said = done.stderr.decode().splitlines()[-1]
    assert said.startswith(f"error: --workdir={workdir} is in use by process {os.getpid()} on ")
    assert (done.returncode, done.stdout) == (5, b"")


def test_a_signal_before_the_training(tmp_path: Path):
    """From a page of configs, which sends it while it is imported."""
    processes = []
    for name in ("SIGINT", "SIGTERM"):
        (page := tmp_path / f"{name}.py").write_text(f"import os, signal\nos.kill(os.getpid(), signal.{name})\n")
        processes.append(start("train", f"--config={page}", f"--workdir={tmp_path / 'run'}", stdout=subprocess.PIPE))
    ends = [(*process.communicate(timeout=60), process.returncode) for process in processes]
    assert ends == [(b"", b"interrupted\n", 130), (b"", b"stopped: the same command continues\n", 75)]
    assert not (tmp_path / "run").exists()


def test_ctrl_c_while_it_waits(finished_run: Path):
    """A real signal, to a predict that waits for its standard input."""
    with start("predict", f"--workdir={finished_run}", stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin and process.stdout and process.stderr
        process.stdin.write(b"the film was lovely\n" * 64)
        process.stdin.flush()
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.stderr.read() == b"interrupted\n"
        assert process.wait() == 130
