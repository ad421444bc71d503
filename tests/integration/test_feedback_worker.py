"""Whole workers on the real broker with feedback: killed in between; performance equals a recount of the source topics."""

from __future__ import annotations

import signal
import sys
import time
from contextlib import closing
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
from kafka.admin import KafkaAdminClient, NewTopic

from stream.transport import METADATA_AGE_MS

_spec = spec_from_file_location("feedback_bench", Path(__file__).with_name("feedback_bench.py"))
feedback_bench = sys.modules["feedback_bench"] = module_from_spec(_spec)
_spec.loader.exec_module(feedback_bench)
FeedbackBench, assert_performance = feedback_bench.FeedbackBench, feedback_bench.assert_performance
children, kill, until = (getattr(feedback_bench.bench_module, name) for name in ("children", "kill", "until"))


@pytest.mark.kafka
def test_performance_equals_a_recount_though_a_worker_is_killed(kafka, prefix, tmp_path):
    b = FeedbackBench(kafka.bootstrap_servers, prefix, tmp_path)
    b.send(b.made(6_000))
    with b.running() as first:
        until(lambda: b.committed() > 0, why=lambda: first.log.read_text()[-3000:])
        b.send(b.made(3_000))
        kill(first.pid)
        first.wait(10)
    with b.running() as second:
        b.send(b.made(3_000))
        total = len(b.read(b.topic))
        until(lambda: b.committed() == total, why=lambda: (b.committed(), second.log.read_text()[-3000:]))
        second.send_signal(signal.SIGTERM)
        assert second.wait(20) == 0, second.log.read_text()[-3000:]
    b.send(b.made(1_000))
    b.drain()
    assert_performance(b)


@pytest.mark.kafka
def test_feedback_that_is_gone_and_made_anew_is_waited_for(kafka, prefix, tmp_path):
    """Meanwhile the group's leader assigns the partitions without it."""
    b = FeedbackBench(kafka.bootstrap_servers, prefix, tmp_path, settings="on_data_loss: reset\n")
    clicks = f"{prefix}in.clicks"
    b.send(b.made(1_000))
    with b.running() as worker, closing(KafkaAdminClient(bootstrap_servers=b.servers)) as admin:
        why = lambda: worker.log.read_text()[-3000:]  # noqa: E731
        until(lambda: b.committed() > 0, why=why)
        admin.delete_topics([clicks])
        time.sleep(METADATA_AGE_MS / 1000 + 3)
        assert worker.poll() is None, why()
        admin.create_topics([NewTopic(clicks, b.partitions, 1)])
        until(lambda: f"{clicks}-0 was deleted and made again" in worker.log.read_text(), 60, why=why)
        b.send(b.made(1_000))
        ends = len(b.read(clicks))
        until(lambda: b.committed(clicks) == ends, 60, why=why)
        until(lambda: b.committed() == len(b.read(b.topic)), 60, why=why)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(20) == 0, why()


@pytest.mark.kafka
def test_two_workers_and_kills_leave_performance_as_a_recount_has_it(kafka, prefix, tmp_path):
    b = FeedbackBench(kafka.bootstrap_servers, prefix, tmp_path)
    command = [sys.executable, "-m", "stream.cli", "run", "--config", str(b.config_path), "--workers", "2"]
    with b.running(command=command) as process:
        why = lambda: process.log.read_text()[-3000:]  # noqa: E731
        until(lambda: len(children(process)) == 2, why=why)
        for victim in (0, 1, 0):
            b.send(b.made(2_500))
            saved = b.committed()
            until(lambda known=saved: b.committed() > known, why=why)
            time.sleep(b.r.random())
            kill(children(process)[victim])
            until(lambda: len(children(process)) == 2, why=why)
        b.send(b.made(1_000))
        assert process.log.read_text().count("ended by signal 9") == 3
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, why()
    b.drain()
    assert_performance(b)
