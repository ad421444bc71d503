"""The command: what it imports, what it prints, how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pyarrow as pa
import pytest
from pyarrow import parquet
from typer.testing import CliRunner

from stream.cli import app
from stream.commands import shared
from stream.commands.shared import ExitCode

GOOD = """\
kafka: {bootstrap_servers: "127.0.0.1:1"}
topics: {predictions: predictions}
models:
  fraud:
    reference: {first: 5000}
    targets: {amount: {kind: numeric, tolerance: 0.2}}
"""
HEAVY = [  # pydantic is typer's own
    "numpy", "numba", "stream.config", "pyarrow", "kafka", "faust", "aiokafka", "river", "ruamel", "orjson", "prometheus_client",
]  # fmt: skip


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "monitor.yaml"
    path.write_text(GOOD)
    return path


def invoke(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.parametrize("command", [["--help"], ["version"], ["run", "--help"], ["topics", "--help"]])
def test_help_imports_nothing_heavy(command: list[str]) -> None:
    code = f"""
import sys
sys.argv = ["driftline", *{command!r}]
from stream.cli import main
try:
    main()
except SystemExit:
    pass
print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "[]"


def test_help_names_every_command() -> None:
    code, out, _ = invoke("--help")
    assert code == 0
    for command in [
        "demo",
        "check-config",
        "check-reference",
        "schema",
        "explain",
        "topics",
        "run",
        "replay",
        "broker",
        "version",
    ]:
        assert command in out


def test_check_config_of_a_good_file(config: Path) -> None:
    code, out, err = invoke("check-config", "-c", config)
    assert (code, err) == (0, "")
    assert out.startswith("about ")
    assert out.endswith("ok\n")


def test_check_config_of_a_bad_file(config: Path) -> None:
    config.write_text(GOOD.replace("tolerance", "tolerence"))
    code, out, err = invoke("check-config", "-c", config)
    assert code == ExitCode.PROBLEMS
    assert out == ""
    assert "monitor.yaml:6:39  models.fraud.targets.amount.tolerence: unknown key" in err
    assert "did you mean `tolerance`?" in err
    code, out, err = invoke("check-config", "-c", config, "-o", "json")
    assert code == ExitCode.PROBLEMS
    (problem,) = json.loads(out)["problems"]
    assert (problem["code"], problem["line"], problem["column"]) == ("DL-C012", 6, 39)


def test_check_config_says_what_does_not_fit_the_reference(config: Path) -> None:
    config.write_text(GOOD.replace("{first: 5000}", "{file: training.parquet}"))
    code, _, err = invoke("check-config", "-c", config)
    assert code == ExitCode.PROBLEMS
    assert "monitor.yaml:5:23  models.fraud.reference.file: " in err
    assert "training.parquet is not there" in err
    parquet.write_table(pa.table({"amuont": [1.0, 2.0]}), config.parent / "training.parquet")
    code, _, err = invoke("check-config", "-c", config)
    assert code == ExitCode.PROBLEMS
    assert "models.fraud.targets.amount: the reference has no amount" in err
    assert "did you mean `amuont`?" in err
    parquet.write_table(pa.table({"amount": [1.0, 2.0]}), config.parent / "training.parquet")
    assert invoke("check-config", "-c", config)[0] == 0
    config.write_text(config.read_text().replace("{file:", "{label: y, file:"))
    code, _, err = invoke("check-config", "-c", config)
    assert "there is no column y." in err


def test_check_config_refuses_what_needs_more_memory_than_the_budget(config: Path) -> None:
    config.write_text(GOOD + "memory_budget: 190MB\n")
    code, _, err = invoke("check-config", "-c", config)
    assert code == ExitCode.PROBLEMS
    assert "monitor.yaml:7:16  memory_budget: about " in err
    assert invoke("check-config", "-c", config, "--rate", "100")[0] == 0
    assert (
        json.loads(invoke("check-config", "-c", config, "--rate", "100", "-o", "json")[1])["estimate"]["total_bytes"]
        < 190e6
    )


def test_check_config_counts_the_categories_of_a_reference_file(config: Path) -> None:
    config.write_text(GOOD.replace("{first: 5000}", "{file: training.parquet}"))

    def edge_bytes(values: list[str | bool | None]) -> int:
        amounts = [float(n) for n in range(len(values))]
        parquet.write_table(pa.table({"amount": amounts, "kind": values}), config.parent / "training.parquet")
        code, out, _ = invoke("check-config", "-c", config, "--partitions", "1", "--rate", "10", "-o", "json")
        assert code == 0
        return int(json.loads(out)["estimate"]["edge_bytes"])

    few, more = (edge_bytes([None, *(f"kind {k % n}" for k in range(99))]) for n in (3, 13))
    assert more - few == 10 * 2
    assert edge_bytes([None, *(bool(k % 2) for k in range(99))]) == few - 2
    assert edge_bytes([f"kind {k}" for k in range(99)]) - few == 27 * 2 + 2_048  # 30 have bins; the others share one


def test_a_model_without_known_targets_has_no_estimate(config: Path) -> None:
    config.write_text(GOOD.split("    targets", maxsplit=1)[0])
    code, out, _ = invoke("check-config", "-c", config, "-o", "json")
    assert code == 0
    assert json.loads(out) == {"problems": [], "estimate": None}


def test_schema_is_json_schema_of_the_config_and_of_events() -> None:
    for name in ([], ["prediction"], ["alert"]):
        code, out, _ = invoke("schema", *name)
        assert code == 0
        jsonschema.Draft202012Validator.check_schema(json.loads(out))
    code, _, err = invoke("schema", "alret")
    assert code == ExitCode.USAGE
    assert "did you mean `alert`?" in err


def test_explain_says_where_every_value_comes_from(config: Path) -> None:
    code, out, _ = invoke("explain", "-c", config, "-o", "json")
    assert code == 0
    settings = {setting["path"]: setting for setting in json.loads(out)}
    assert settings["models.fraud.targets.amount.tolerance"]["value"] == "0.2"
    assert settings["models.fraud.targets.amount.tolerance"]["origin"] == f"{config}:6"
    assert settings["topics.predictions.name"]["origin"] == f"{config}:2"
    assert settings["resolution"] == {
        "path": "resolution", "value": "1m", "origin": "default", "meaning": "length of a pane, the unit of windows",
    }  # fmt: skip
    assert settings["models.fraud.false_alarms"]["origin"] == "default"
    code, out, _ = invoke("explain", "-c", config, "tolerance")
    assert code == 0
    assert "models.fraud.targets.amount.tolerance" in out
    assert "resolution" not in out
    assert invoke("explain", "-c", config, "nothing.like.that")[0] == ExitCode.PROBLEMS


def test_explain_never_shows_a_secret(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    security = "security: {protocol: SASL_SSL, mechanism: PLAIN, username: me, password: PASSWORD}"
    monkeypatch.setenv("KAFKA_PASSWORD", "canary-1")
    for text in ('"${KAFKA_PASSWORD}"', "canary-2"):
        config.write_text(GOOD.replace('1"}', f'1", {security.replace("PASSWORD", text)}}}'))
        code, out, err = invoke("explain", "-c", config)
        assert code == 0
        assert "canary" not in out + err
        assert ("${KAFKA_PASSWORD}" in out) == text.startswith('"$')
        assert ("warning: kafka.security.password" in err) == (not text.startswith('"$'))


@pytest.mark.parametrize("command", [["run"], ["explain"], ["topics", "list"], ["replay", "events.jsonl"]])
def test_a_bad_configuration_is_a_usage_error_before_anything_starts(config: Path, command: list[str]) -> None:
    config.write_text(GOOD.replace("topics:", "topcis:"))
    code, out, err = invoke(*command, "-c", config)
    assert (code, out) == (ExitCode.USAGE, "")
    assert "topcis: unknown key" in err
    assert "topics: missing" in err


def test_an_unreachable_broker_has_its_own_exit_code(config: Path) -> None:
    code, _, err = invoke("topics", "list", "-c", config)
    assert code == ExitCode.UNREACHABLE
    assert "cannot use Kafka at 127.0.0.1:1" in err


def test_replay_of_a_file_that_is_not_there_is_a_usage_error(config: Path) -> None:
    code, _, err = invoke("replay", "-c", config, "nowhere.jsonl")
    assert code == ExitCode.USAGE
    assert err == "nowhere.jsonl is not there\n"


def test_unforeseen_errors_keep_their_traceback(monkeypatch: pytest.MonkeyPatch, config: Path) -> None:
    def broken(_: Path) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("stream.commands.configuration.loaded_config", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        invoke("explain", "-c", config)


def test_every_named_error_exists() -> None:
    for path in shared._CODES:
        module, name = path.rsplit(".", 1)
        error = getattr(__import__(module, fromlist=[name]), name)
        assert issubclass(error, Exception)
