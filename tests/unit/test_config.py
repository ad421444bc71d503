"""A good configuration is read as it stands; a bad one says everything that is wrong with it."""

from __future__ import annotations

import copy
import dataclasses
import logging
import pickle
import re
import textwrap
import traceback
from pathlib import Path

import pytest

from stream.config import Config, config_from
from stream.config_errors import ERROR_CODES, ConfigError, Severity
from stream.config_loader import load, load_config
from stream.quantities import Duration, Rate, Size
from stream.topics import TopicRole

LEAST = """\
kafka: {bootstrap_servers: localhost:9092}
topics: {predictions: predictions}
models:
  fraud:
    reference: {first: 100000}
"""

FULL = """\
kafka:
  bootstrap_servers: [kafka-1:9093, "[::1]:9093"]
  security: {protocol: SASL_SSL, mechanism: SCRAM-SHA-512, username: driftline, password: "${KAFKA_PASSWORD}", ca_file: ca.pem}
topics:
  predictions: {name: fraud.scored, mapping: {timestamp: meta.at, timestamp_unit: ms, model: "=fraud"}, lateness: 2s}
prefix: team.
resolution: 30s
dedup: false
monitors: 4
memory_budget: 2 GiB
metrics: {port: 0}
defaults: {false_alarms: 2 per 7d, tolerance: 1e-1, window: auto}
models:
  fraud:
    owner: payments-ml
    criticality: high
    runbook: https://wiki/fraud-model
    reference: {file: training.parquet, label: is_fraud, prediction: decision, score: score, ignore: [row]}
    window: {every: 5m, min_events: 200, max_duration: 1h}
    targets:
      amount: {tolerance: 0.1, range: [0, 50_000]}
      country: {kind: categorical}
      session.text: {watch: false}
    segments: {country: [DE, NO, 1, true]}
    traffic: split
    detectors: [{type: psi, targets: [amount], threshold: 0.25}]
  churn:
    reference: {first: 5000}
    false_alarms: 1 per 1d
    tolerance: 0.2
"""


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "monitor.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def problems(folder: Path, text: str | bytes) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_config(write(folder, text))
    return [dataclasses.replace(problem, file="monitor.yaml").render() for problem in caught.value.problems]


def test_the_least_that_works_has_the_defaults_of_the_contracts(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, LEAST))
    assert config.kafka.bootstrap_servers == ("localhost:9092",)
    assert config.topic(TopicRole.PREDICTIONS) == "predictions"
    assert config.topic(TopicRole.PANES) == "driftline.panes"
    assert config.resolution == Duration(60_000)
    assert config.topics.predictions.lateness == Duration(60_000)
    assert config.max_future_skew == Duration(300_000)
    assert config.idle_timeout == Duration(60_000)
    assert config.monitors == 8
    assert config.dedup is True
    assert config.false_alarms_of("fraud").budget_ms == 30 * 86_400_000
    assert config.tolerance_of("fraud") == (0.05, True)
    assert config.window_of("fraud").every is config.window_of("fraud").min_events is None


def test_everything_an_operator_may_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_PASSWORD", "canary")
    loaded = load(write(tmp_path, FULL))
    config = loaded.config
    assert loaded.warnings == ()
    assert config.kafka.security.password is not None
    assert config.kafka.security.password.reveal() == "canary"
    assert config.kafka.security.ca_file == tmp_path / "ca.pem"
    assert config.topics.predictions.mapping.timestamp == "meta.at"
    assert config.topics.predictions.lateness == Duration(2000)
    assert config.memory_budget == Size(2 * 2**30)
    assert config.defaults.false_alarms == Rate(2.0, Duration(7 * 86_400_000))
    fraud = config.models["fraud"]
    assert fraud.segments == {"country": ("DE", "NO", "1", "true")}
    assert fraud.targets["amount"].range == (0, 50_000)
    assert fraud.targets["session.text"].watch is False
    assert config.tolerance_of("fraud", "amount") == (0.1, False)
    assert config.tolerance_of("fraud", "country") == (0.1, False)  # the default of this file, 1e-1
    assert config.tolerance_of("churn", "country") == (0.2, False)
    assert config.false_alarms_of("churn").budget_ms == 86_400_000
    assert config.window_of("fraud").min_events == 200
    assert loaded.places[("models", "fraud", "targets", "amount", "range")].key == (21, 32)


def test_a_byte_order_mark_and_windows_line_ends_change_nothing(tmp_path: Path) -> None:
    plain = load_config(write(tmp_path, LEAST))
    assert load_config(write(tmp_path, b"\xef\xbb\xbf" + LEAST.replace("\n", "\r\n").encode())) == plain


def test_all_problems_come_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = """\
    kafka: {bootstrap_servers: localhost}
    topics: {predictions: predictions}
    models:
      fraud:
        reference: {first: 10}
        targets:
          amount: {tolerence: 0.1, range: [3, 1]}
    """
    expected = """\
    monitor.yaml:1:28  kafka.bootstrap_servers: 'localhost' is no broker address
                       expected: host:port (only secret keys read ${...})  [DL-C014]
    monitor.yaml:5:24  models.fraud.reference.first: 10 (a number)
                       expected: at least 5000  [DL-C014]
    monitor.yaml:7:16  models.fraud.targets.amount.tolerence: unknown key
                       did you mean `tolerance`?  Known here: coerce, dimension, kind, range, tolerance, watch  [DL-C012]
    monitor.yaml:7:39  models.fraud.targets.amount.range: [3, 1] is empty
                       expected: the lower limit first  [DL-C020]"""
    assert problems(tmp_path, textwrap.dedent(text)) == re.split(r"\n(?=monitor)", textwrap.dedent(expected))


HEAD = "kafka: {bootstrap_servers: a:1}\ntopics: {predictions: p}\n"
MODEL = HEAD + "models: {fraud: {reference: {first: 5000}}}\n"


def fraud(settings: str) -> str:
    return HEAD + "models:\n  fraud:\n    reference: {first: 5000}\n    " + settings + "\n"


# what is wrong: the file, then the one problem (place and path: read | expected | code)
BAD = {
    "empty": ("", "monitor.yaml  the file is empty | at least kafka, topics and models | DL-C009"),
    "no mapping": ("- 1", "monitor.yaml:1:1  the file is no mapping | keys: kafka, topics, models | DL-C011"),
    "two documents": (MODEL + "---\na: 1\n", "monitor.yaml:4:1  a second document | one document | DL-C009"),
    "tab": (
        "kafka:\n\tbootstrap_servers: a:1\n",
        "monitor.yaml:2:1  a tab | spaces: YAML does not indent with tabs | DL-C004",
    ),
    "unclosed": (
        "kafka: {a: 1\n",
        "monitor.yaml:2:1  expected ',' or '}', but got '<stream end>' | valid YAML | DL-C004",
    ),
    "not UTF-8": (b"kafka:\n  a: \xff\n", "monitor.yaml:2:6  byte 0xff is not UTF-8 | UTF-8 text | DL-C003"),
    "UTF-16": (LEAST.encode("utf-16-le"), None),
    "duplicate key": (
        MODEL + "models: {}\n",
        "monitor.yaml:4:1  models: the key stands twice | one of them; the first is in line 3 | DL-C005",
    ),
    "python object": (
        MODEL + "prefix: !!python/object/apply:os.system [ls]\n",
        "monitor.yaml:4:9  the tag tag:yaml.org,2002:python/object/apply:os.system | plain values, without tags | DL-C006",
    ),
    "own tag": (MODEL + "prefix: !env HOME\n", "monitor.yaml:4:9  the tag !env | plain values, without tags | DL-C006"),
    "merge key": (
        HEAD + "models:\n  fraud: &f {reference: {first: 5000}}\n  churn: {<<: *f}\n",
        "monitor.yaml:5:11  models.churn: the merge key << | YAML 1.2 has none: write the keys out | DL-C006",
    ),
    "numeric key": (
        HEAD + "models: {1: {reference: {first: 5000}}}\n",
        "monitor.yaml:3:10  models: the key 1 is not text | text: put it in quotes | DL-C008",
    ),
    "integer without a digit": (
        MODEL + "monitors: 0x_\n",
        "monitor.yaml:4:11  monitors: 0x_ is no number | a number, or text in quotes | DL-C004",
    ),
    "number without a digit": (
        MODEL + "monitors: ._\n",
        "monitor.yaml:4:11  monitors: ._ is no number | a number, or text in quotes | DL-C004",
    ),
    "missing section": (HEAD, "monitor.yaml:1:1  models: missing | needed here: models (known here: dead_letters,"),
    "missing key": (
        HEAD + "models:\n  fraud: {owner: me}\n",
        "monitor.yaml:4:3  models.fraud.reference: missing | needed here: reference (known here: criticality,",
    ),
    "null": (HEAD + "models:\n", "monitor.yaml:3:1  models: nothing | expected: a mapping | DL-C011"),
    "no is text": (MODEL + "dedup: no\n", "monitor.yaml:4:8  dedup: 'no' (text) | expected: true or false | DL-C011"),
    "true is no number": (
        MODEL + "monitors: true\n",
        "monitor.yaml:4:11  monitors: true (true or false) | expected: a whole number | DL-C011",
    ),
    "fraction": (
        MODEL + "monitors: 2.5\n",
        "monitor.yaml:4:11  monitors: 2.5 (a number) | expected: a whole number | DL-C011",
    ),
    "NaN": (
        fraud("tolerance: .nan"),
        "monitor.yaml:6:16  models.fraud.tolerance: nan (a number) | expected: a finite number | DL-C014",
    ),
    "infinite": (
        fraud("targets: {a: {range: [0, .inf]}}"),
        "models.fraud.targets.a.range[1]: inf (a number) | expected: a finite number | DL-C014",
    ),
    "duration without unit": (
        MODEL + "resolution: 60\n",
        "monitor.yaml:4:13  resolution: 60 has no unit | expected: 5m (a whole number and one of ms, s, m, h, d, w) | DL-C015",
    ),
    "unknown unit": (
        MODEL + "resolution: 1min\n",
        "monitor.yaml:4:13  resolution: '1min' is no duration | expected: 5m",
    ),
    "zero": (
        MODEL + "resolution: 0s\n",
        "monitor.yaml:4:13  resolution: 0s is out of range | expected: more than 0 and at most 10 years | DL-C014",
    ),
    "rate": (
        fraud("false_alarms: 1 in 30d"),
        "models.fraud.false_alarms: '1 in 30d' is no rate | expected: \"1 per 30d\" (a number",
    ),
    "rate of none": (
        fraud("false_alarms: 0 per 30d"),
        "models.fraud.false_alarms: 0 per 30d is out of range | expected: more than 0: no",
    ),
    "size": (MODEL + "memory_budget: 1 gb\n", "memory_budget: '1 gb' is no size | expected: 350MB (a whole number"),
    "topic name": (
        HEAD.replace("p}", '"a b"}') + "models: {fraud: {reference: {first: 5000}}}\n",
        "topics.predictions: 'a b' is no topic name",
    ),
    "port": (MODEL.replace("a:1", "a:99999"), "kafka.bootstrap_servers: 'a:99999' is no broker address"),
    "unknown mechanism": (
        MODEL.replace("a:1}", "a:1, security: {protocol: SASL_SLL}}"),
        "monitor.yaml:1:54  kafka.security.protocol: 'SASL_SLL' (text) is not known | did you mean `SASL_SSL`?  Known here: ",
    ),
    "unknown distance": (
        fraud("detectors: [{type: ks, threshold: 1}]"),
        "monitor.yaml:6:24  models.fraud.detectors[0].type: 'ks' is not known | Known here: adwin, chi_squared, ",
    ),
    "misspelt distance": (
        fraud("detectors: [{type: psy, threshold: 1}]"),
        "'psy' is not known | did you mean `psi`?  Known here: adwin",
    ),
    "series without a limit": (
        fraud("detectors: [{type: mean}]"),
        "mean has no limit | expected: threshold: the value above which it pages | DL-C010",
    ),
    "test without p": (
        fraud("detectors: [{type: g_test}]"),
        "g_test has no limit | expected: below: the p at which it pages | DL-C010",
    ),
    "test above": (
        fraud("detectors: [{type: g_test, threshold: 0.01}]"),
        "g_test pages where p is small | expected: below, between 0 and 1, and no threshold | DL-C020",
    ),
    "distance below": (
        fraud("detectors: [{type: psi, below: 0.01}]"),
        "psi pages where it is large | expected: threshold, above 0, and no below | DL-C020",
    ),
    "limits that always page": (
        fraud("detectors: [{type: mean, below: 3, threshold: 2}]"),
        "below 3 and above 2 is always | expected: below < threshold | DL-C020",
    ),
    "parameters of a statistic": (
        fraud("detectors: [{type: mean, below: 3, parameters: {groups: 5}}]"),
        "mean has no parameters | expected: no parameters | DL-C020",
    ),
    "unknown parameter": (
        fraud("detectors: [{type: psi, threshold: 1, parameters: {bins: 5}}]"),
        "'bins' is no parameter; known here: groups, epsilon_count | expected: as the README's catalogue says | DL-C014",
    ),
    "parameter out of range": (
        fraud("detectors: [{type: psi, threshold: 1, parameters: {groups: 1}}]"),
        "psi.groups: 1 is outside 2 to 100",
    ),
    "online without series": (
        fraud("detectors: [{type: adwin}]"),
        "adwin has no series | expected: series: the numbers it sees, for instance mean | DL-C010",
    ),
    "online with a threshold": (
        fraud("detectors: [{type: adwin, series: mean, threshold: 3}]"),
        "adwin has its limits among its parameters | expected: no threshold and no below | DL-C020",
    ),
    "online on an unknown series": (
        fraud("detectors: [{type: adwin, series: mood}]"),
        "detectors[0].series: 'mood' is not known",
    ),
    "errors without a stream of them": (
        fraud("detectors: [{type: ddm, series: mean}]"),
        "detectors[0].type: 'ddm' is not known",
    ),
    "series of a statistic": (
        fraud("detectors: [{type: mean, series: mean, threshold: 3}]"),
        "mean is a series itself | expected: no series; those are for online detectors | DL-C020",
    ),
    "parameter of an online detector": (
        fraud("detectors: [{type: cusum, series: mean, parameters: {slack: -1}}]"),
        "cusum.slack: -1 is outside 0 to 10",
    ),
    "half of SASL": (
        MODEL.replace("a:1}", "a:1, security: {protocol: SASL_SSL, username: me}}"),
        "kafka.security: SASL_SSL lacks mechanism, password | expected: mechanism, username and password | DL-C010",
    ),
    "SASL without protocol": (
        MODEL.replace("a:1}", "a:1, security: {username: me}}"),
        "kafka.security: username has no effect with protocol PLAINTEXT",
    ),
    "TLS without protocol": (
        MODEL.replace("a:1}", "a:1, security: {ca_file: x}}"),
        "kafka.security: ca_file has no effect with protocol PLAINTEXT",
    ),
    "key without certificate": (
        MODEL.replace("a:1}", "a:1, security: {protocol: SSL, key_file: x}}"),
        "kafka.security: certificate_file and key_file go together | expected: both or none | DL-C010",
    ),
    "both references": (
        HEAD + "models: {fraud: {reference: {first: 5000, file: x.csv}}}\n",
        "models.fraud.reference: both file and first | expected: exactly one of file, first | DL-C020",
    ),
    "no reference": (
        HEAD + "models: {fraud: {reference: {}}}\n",
        "models.fraud.reference: neither file nor first | expected: exactly one",
    ),
    "columns without file": (
        HEAD + "models: {fraud: {reference: {first: 5000, label: y}}}\n",
        "models.fraud.reference: label names a column of a file, and there is none",
    ),
    "range of categories": (
        fraud("targets: {a: {kind: categorical, range: [0, 1]}}"),
        "models.fraud.targets.a: a categorical target has no range",
    ),
    "one limit": (
        fraud("targets: {a: {range: [0]}}"),
        "monitor.yaml:6:19  models.fraud.targets.a.range[1]: missing | needed here: value number 2",
    ),
    "short max_duration": (
        fraud("window: {every: 5m, max_duration: 1m}"),
        "models.fraud.window: max_duration 1m is shorter than every 5m",
    ),
    "odd window": (
        fraud("window: {every: 90s}"),
        "monitor.yaml:6:21  models.fraud.window.every: 90s is no whole number of panes | expected: a multiple of resolution (1m) | DL-C022",
    ),
    "odd default window": (
        MODEL + "defaults: {window: {every: 61s}}\n",
        "defaults.window.every: 61s is no whole number of panes",
    ),
    "own topic read": (
        MODEL.replace("predictions: p", "predictions: driftline.panes"),
        "monitor.yaml:2:23  topics.predictions: driftline.panes is driftline's own panes topic | expected: the topic that the model",
    ),
    "threshold on nothing": (
        fraud("targets: {a: {watch: false}}\n    detectors: [{type: psi, targets: [a], threshold: 1}]"),
        "monitor.yaml:7:39  models.fraud.detectors[0].targets[0]: a is not watched | expected: targets.a without watch: false | DL-C020",
    ),
    "empty key in a path": (
        MODEL.replace("predictions: p", "predictions: {name: p, mapping: {timestamp: a..b}}"),
        "topics.predictions.mapping: path 'a..b' has an empty key | expected: dotted paths without empty keys | DL-C026",
    ),
    "empty segment": (
        fraud("segments: {country: []}"),
        "models.fraud.segments.country: 0 entries | expected: at least 1 | DL-C014",
    ),
    "missing variable": (
        MODEL.replace(
            "a:1}",
            'a:1, security: {protocol: SSL, ca_file: x, certificate_file: c, key_file: k, key_password: "${DL_NOT_SET}"}}',
        ),
        "kafka.security.key_password: the environment variable DL_NOT_SET is not set | expected: export DL_NOT_SET=... | DL-C016",
    ),
    "missing secret file": (
        MODEL.replace("a:1}", 'a:1, security: {key_password: "${file:nowhere}"}}'),
        "kafka.security.key_password: nowhere cannot be read: No such file or directory | expected: a readable file | DL-C016",
    ),
    "secret inside text": (
        MODEL.replace("a:1}", 'a:1, security: {key_password: "x${HOME}"}}'),
        "kafka.security.key_password: a secret is one reference and nothing around it | expected: ${NAME} or ${file:PATH} | DL-C016",
    ),
    "anchor twice": (
        "a: &a [x]\nb: &a [y]\nc: *a\n",
        "monitor.yaml:2:4  the anchor &a stands twice | another name | DL-C005",
    ),
    "aliases": (
        "a: &a [x]\nb: [" + ", ".join(["*a"] * 101) + "]\n",
        "monitor.yaml:2:405  more than 100 aliases | at most 100 aliases | DL-C007",
    ),
    "depth": ("a: " + "[" * 40 + "]" * 40, "monitor.yaml:1:35  deeper than 32 levels | at most 32 levels | DL-C007"),
    "dotted name": (
        fraud('targets: {"a.b": {tolerence: 1}}'),
        'models.fraud.targets."a.b".tolerence: unknown key | did you mean `tolerance`?',
    ),
    "surrogate": (
        MODEL + 'prefix: "\\ud800"\n',
        "monitor.yaml:4:9  prefix: an unpaired surrogate | valid Unicode text | DL-C003",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_says_where_what_and_what_instead(tmp_path: Path, name: str) -> None:
    text, expected = BAD[name]
    found = problems(tmp_path, text)
    if expected is None:
        assert found
        return
    assert len(found) == 1, found
    first, second = found[0].split("\n")
    second, code = re.fullmatch(r" *(.*?) *\[(DL-C\d+)\]", second).groups()
    line = f"{first} | {second} | {code}"
    assert expected in line if not expected.startswith("monitor.yaml") else line.startswith(expected), line


def test_a_bomb_of_aliases_costs_nothing(tmp_path: Path) -> None:
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{n}: &a{n} [" + ", ".join([f"*a{n - 1}"] * 9) + "]" for n in range(1, 10)]
    assert "aliases make more than 200000 values" in problems(tmp_path, "\n".join(levels))[0]


def test_ten_megabytes_are_refused_unread(tmp_path: Path) -> None:
    assert problems(tmp_path, b"#" * 10_000_000)[0].startswith("monitor.yaml  the file is larger than 1 MB")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file or directory"):
        load_config(tmp_path / "nowhere.yaml")


def test_every_code_of_a_problem_is_in_the_table() -> None:
    used = {code for _, expected in BAD.values() if expected for code in re.findall(r"DL-C\d+", expected)}
    assert used <= set(ERROR_CODES)


CANARY = "s3cr3t-canary"


def test_auto_is_at_least_the_number_further_out(tmp_path: Path) -> None:
    file = """\
kafka: {bootstrap_servers: localhost:9092}
topics: {predictions: predictions}
defaults: {tolerance: %s}
models:
  m: {reference: {first: 5000}, targets: {x: {tolerance: auto}, y: {tolerance: 0}, z: {}}, tolerance: %s}
"""
    for default, model, expected in [
        ("auto", "auto", {"x": (0.05, True), "y": (0.0, False), "z": (0.05, True)}),
        ("0.03", "auto", {"x": (0.03, True), "y": (0.0, False), "z": (0.03, True)}),
        ("0.03", "0.2", {"x": (0.2, True), "y": (0.0, False), "z": (0.2, False)}),
        ("auto", "3", {"x": (3.0, True), "y": (0.0, False), "z": (3.0, False)}),
    ]:
        config = load_config(write(tmp_path, file % (default, model)))
        assert {target: config.tolerance_of("m", target) for target in "xyz"} == expected


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("atuo", "'atuo' is no tolerance | expected: auto, or a number from 0 to 3 | DL-C013"),
        ("3.5", "3.5 (a number) | expected: at most 3.0 | DL-C014"),
        ("-1", "-1 (a number) | expected: at least 0.0 | DL-C014"),
        ("[1]", "a list | expected: a number | DL-C011"),
    ],
)
def test_a_tolerance_is_auto_or_a_number(tmp_path: Path, written: str, said: str) -> None:
    found = problems(tmp_path, fraud(f"tolerance: {written}"))
    assert [" | ".join(re.split(r"\s{2,}", p.partition("models.fraud.tolerance: ")[2])) for p in found] == [
        said.replace("DL-", "[DL-") + "]"
    ]


def test_a_literal_secret_is_a_warning_and_is_never_shown(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    security = f"{{protocol: SASL_SSL, mechanism: PLAIN, username: me, password: {CANARY}}}"
    loaded = load(write(tmp_path, MODEL.replace("a:1}", f"a:1, security: {security}}}")))
    (warning,) = loaded.warnings
    assert warning.severity is Severity.WARNING
    assert "warning: kafka.security.password: a secret stands in the file" in warning.render()
    with caplog.at_level(logging.INFO):
        logging.getLogger("test").info("%s %r", loaded.config, loaded.config.kafka)
    dumped = str(loaded.config.model_dump(mode="json")) + loaded.config.model_dump_json()
    shown = [warning.render(), str(loaded.config), repr(loaded.config), dumped, caplog.text]
    assert not any(CANARY in text for text in shown)
    assert loaded.config.kafka.security.password.reveal() == CANARY
    with pytest.raises(TypeError):
        pickle.dumps(loaded.config.kafka.security.password)


def test_a_secret_beside_an_error_is_not_in_the_traceback(tmp_path: Path) -> None:
    security = f"{{protocol: PLAINTEXT, username: me, password: {CANARY}}}"
    try:
        load(write(tmp_path, MODEL.replace("a:1}", f"a:1, security: {security}}}")))
    except ConfigError:
        assert CANARY not in traceback.format_exc()
    else:
        pytest.fail("must be refused")


def test_a_secret_from_a_file_loses_its_last_newline(tmp_path: Path) -> None:
    (tmp_path / "password").write_text(CANARY + "\r\n")
    security = '{protocol: SASL_SSL, mechanism: PLAIN, username: me, password: "${file:password}"}'
    loaded = load(write(tmp_path, MODEL.replace("a:1}", f"a:1, security: {security}}}")))
    assert loaded.warnings == ()
    assert loaded.config.kafka.security.password.reveal() == CANARY
    assert str(loaded.config.kafka.security.password) == "${file:password}"


@pytest.mark.parametrize(
    ("text", "length_ms"), [("1ms", 1), ("90s", 90_000), ("5m", 300_000), ("36h", 129_600_000), ("7d", 604_800_000)]
)
def test_durations(text: str, length_ms: int) -> None:
    assert Duration.parse(text).ms == length_ms
    assert Duration.parse(str(Duration.parse(text))) == Duration.parse(text)


def test_a_configuration_can_be_made_without_a_file() -> None:
    data = {
        "kafka": {"bootstrap_servers": ["a:1"]},
        "topics": {"predictions": "p"},
        "models": {"fraud": {"reference": {"first": 5000}, "segments": {"country": ["DE"]}}},
    }
    before = copy.deepcopy(data)
    assert isinstance(config_from(data), Config)
    assert data == before
    with pytest.raises(ConfigError, match=r"modles: unknown key\n *did you mean `models`"):
        config_from({**data, "modles": {}})
