"""The rows of the fault list and what shows each: a test by its id, or a command for what takes minutes.

`python -m tests.faults.rows README.md` writes the README's table anew; tests/unit/test_fault_rows.py holds both to this file.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import NamedTuple

BLOCK = re.compile(r"(<!-- rows: faults -->\n).*?(<!-- end of rows -->)", re.DOTALL)


class Row(NamedTuple):
    """`shown`: "tests/FILE.py::test[id]" (the test has this parameter), "tests/FILE.py::test", or a command."""

    fault: str
    expected: str
    shown: tuple[str, ...]


def _faults(file: str, *names: str) -> tuple[str, ...]:
    return tuple(f"tests/faults/test_{file}.py::{name}" for name in names)


_SIMULATED = "tests/simulation/test_simulation.py::test_seeds_are_right"
_OWNERSHIP = "tests/unit/test_ownership.py::"
_STORM = "test_storm"
_STATE = "test_a_damaged_snapshot_is_passed_over_and_a_newer_one_is_refused[F22-F23-F24-damaged-then-newer-state]"
_REFUSED = "test_what_the_broker_refuses_for_now_is_tried_again_and_what_it_forbids_is_named"
_BROKER_DIES = "test_f4_f5_the_broker_is_killed_while_panes_snapshots_and_alerts_are_written_and_stays_away"

ROWS: dict[str, Row] = {
    "F1": Row(
        "a worker is killed (-9) at any step of its work",
        "nothing lost, nothing twice, alerts with the same ids and bodies",
        (
            "python -m load_tests.chaos --kills 300 --workers 2 --seed 1",
            *_faults("dead_letter_topic", "test_a_kill_between_letter_and_commit_repeats_letters_byte_for_byte"),
            _SIMULATED,
        ),
    ),
    "F2": Row(
        "SIGTERM, SIGINT, a second signal",
        "saves, leaves the group, exits 0 within 10 s; the second signal ends it at once, which is F1",
        _faults("process_faults", f"{_STORM}[F2-stop-drains-and-leaves]", f"{_STORM}[F2-second-signal-is-a-crash]"),
    ),
    "F3": Row(
        "a worker is frozen and comes back as a zombie owner",
        "fenced: what it says is void, it joins again",
        (
            *_faults("process_faults", f"{_STORM}[F3-frozen-5s-and-30s]", f"{_STORM}[F2-F3-F33-exact]"),
            "python -m load_tests.faults F3-120",
            _SIMULATED,
        ),
    ),
    "F4": Row(
        "the broker is away",
        "waits in silence, not ready but live, goes on within 5 s of its return",
        (
            *_faults("broker_faults", _BROKER_DIES),
            "python -m load_tests.faults F4-30",
            "python -m load_tests.faults F4",
        ),
    ),
    "F5": Row(
        "the broker is killed (-9) while panes, snapshots and alerts are written",
        "sent again, ids unchanged, no gap",
        (*_faults("broker_faults", _BROKER_DIES), _SIMULATED),
    ),
    "F6": Row(
        "the predictions topic is made anew, empty or grown past the position",
        "refused by name, or gone on with `on_data_loss: reset`",
        _faults(
            "broker_faults",
            *(
                f"test_f6_a_topic_made_anew_is_refused_by_name_and_with_reset_gone_on_with[F6-{name}]"
                for name in (
                    "made-anew-empty-at-start",
                    "made-anew-and-grown-past-the-position",
                    "made-anew-while-running",
                )
            ),
        ),
    ),
    "F7": Row(
        "retention takes what was not read yet",
        "the gap is counted exactly, its windows are incomplete and not judged, one alert",
        (
            *_faults("broker_faults", "test_f7_what_was_deleted_while_we_were_down_is_a_gap_measured_exactly"),
            *_faults("gaps", "test_deleted_records_make_one_incomplete_stretch_and_one_alert"),
        ),
    ),
    "F8": Row(
        "an internal topic is made anew, or trimmed",
        "state and panes: refused by name; outputs: gone on with; never a hang",
        _faults(
            "broker_faults",
            *(
                f"test_f8_an_internal_topic_that_was_made_anew_is_refused_or_goes_on_and_never_hangs[F8-{name}-made-anew]"
                for name in ("state", "panes", "outputs")
            ),
            "test_f8_a_state_log_trimmed_behind_a_snapshot_is_refused",
        ),
    ),
    "F9": Row(
        "workers come and go every two seconds",
        "exact; progress in every minute; no thread more",
        ("python -m load_tests.faults F9-short", "python -m load_tests.faults F9", _SIMULATED),
    ),
    "F10": Row(
        "a rolling restart",
        "a leave, a join, and at most one rebalance more for each; no alert",
        (
            *_faults(
                "process_faults",
                "test_a_rolling_restart_costs_one_rebalance_beyond_join_and_leave[F10-restart-beside-another]",
            ),
            "python -m load_tests.faults F10",
        ),
    ),
    "F11": Row(
        "the predictions topic grows while workers run",
        "refused with both counts and the way out",
        _faults("broker_faults", "test_f11_f12_a_topic_that_grew_and_counts_that_differ_are_refused_with_the_way_out"),
    ),
    "F12": Row(
        "partition counts differ at the start",
        "refused with both counts and the command that mends it",
        _faults("broker_faults", "test_f11_f12_a_topic_that_grew_and_counts_that_differ_are_refused_with_the_way_out"),
    ),
    "F13": Row(
        "one partition has 90 % of the traffic",
        "the others wait at most twice as long, memory stays, `lag_events` is true",
        _faults("process_faults", "test_a_hot_partition_does_not_delay_the_others[F13-hot-partition]"),
    ),
    "F14": Row(
        "the broker is slow, deaf, or half-open",
        "works on while it is slow, waits while it is deaf, opens dead connections anew; memory stays",
        _faults(
            "slow_and_lying_brokers",
            "test_a_slow_broker_costs_time_and_nothing_else[F14-two-seconds-there-and-back]",
            "test_a_slow_broker_costs_time_and_nothing_else[F14-throttled-bytes]",
            "test_a_broker_that_hangs_is_waited_for",
            "test_connections_that_died_silently_are_made_anew",
            "test_f14_f15_everything_was_counted_once",
        ),
    ),
    "F15": Row(
        "the broker refuses: not leader, timed out, loading, rebalance, too large, policy, not authorized, throttled",
        "tried again until it is taken; what only an operator can mend is named in the log",
        (
            *_faults(
                "slow_and_lying_brokers",
                *(
                    f"{_REFUSED}[F15-{name}]"
                    for name in (
                        "not-leader",
                        "produce-timed-out",
                        "coordinator-loads",
                        "not-coordinator",
                        "rebalance-in-progress",
                        "commit-timed-out",
                        "policy-violation",
                        "topic-not-authorized",
                        "group-not-authorized",
                    )
                ),
                "test_a_quota_of_the_broker_slows_and_loses_nothing",
            ),
            *_faults("dead_letter_topic", "test_a_topic_that_is_too_small_holds_its_partition_back_until_it_is_mended"),
        ),
    ),
    "F16": Row(
        "the wall clock jumps",
        "no result changes, no alert, no tick",
        (
            *_faults("state_faults", "test_results_do_not_depend_on_the_wall_clock[F16-wall-clock-jumps]"),
            "tests/unit/test_wall_clock.py",
        ),
    ),
    "F17": Row(
        "a producer's clock is a year ahead",
        "one dead letter, no watermark moves",
        _faults("broker_faults", "test_f17_a_clock_a_year_ahead_is_a_dead_letter_and_moves_no_watermark"),
    ),
    "F18": Row(
        "out of order, twice, and a replay in between",
        "within the lateness the same windows; beyond it counted as late",
        (
            *_faults(
                "process_faults",
                "test_order_within_the_lateness_duplicates_and_a_replay_change_nothing[F18-permuted-duplicated-replayed]",
            ),
            "tests/laws/test_collector_laws.py::test_outputs_equal_the_recount",
        ),
    ),
    "F19": Row(
        "labels before their predictions, twice, taken back; a click of nobody; a conversion before its click",
        "waits; the last counts, a contradiction is counted; retracted; counted as orphan; counts",
        (
            *(
                f"tests/unit/test_bad_feedback.py::{name}"
                for name in (
                    "test_f19_labels_that_arrive_before_their_predictions_wait_for_them",
                    "test_f19_the_later_of_two_labels_counts_and_is_told",
                    "test_f19_b4_a_null_retracts_and_so_does_a_record_without_a_value",
                    "test_f19_a_click_without_an_impression_is_an_orphan",
                    "test_f19_a_conversion_needs_no_click",
                )
            ),
            "tests/laws/test_join_laws.py::test_any_interleaving_gives_the_recount",
            "tests/simulation/test_feedback_simulation.py::test_seeds_are_right",
            "tests/integration/test_feedback_worker.py::test_performance_equals_a_recount_though_a_worker_is_killed",
        ),
    ),
    "F20": Row(
        "the predictions topic is absent, then empty; a partition is idle",
        "waits and says so each 30 s; an idle partition ticks",
        _faults("broker_faults", "test_f20_a_topic_that_is_absent_is_waited_for_and_an_empty_one_holds_nobody_up"),
    ),
    "F21": Row(
        "no file can be written",
        "works: nothing of it need be on disk",
        _faults("state_faults", "test_a_worker_under_a_limit_counts_or_says_why[F21-no-file-can-be-written]"),
    ),
    "F22": Row(
        "snapshots are damaged, cut, swapped, another's",
        "the whole one before is replayed from, or a refusal by name; never a wrong number",
        (
            *_faults("state_faults", _STATE),
            "tests/unit/test_snapshot_damage.py",
            _OWNERSHIP + "test_any_damage_to_the_newest_manifest_or_blob_gives_the_one_before",
        ),
    ),
    "F23": Row(
        "a snapshot of a newer version",
        "refused with both versions, nothing overwritten",
        (
            *_faults("state_faults", _STATE),
            _OWNERSHIP + "test_newer_formats_are_refused_by_name_and_nothing_is_overwritten",
        ),
    ),
    "F24": Row(
        "workers of two versions",
        "the old one ends where it meets newer state; older state loads",
        (*_faults("state_faults", _STATE), "tests/unit/test_state_fixtures.py"),
    ),
    "F31": Row(
        "a million names of models, versions, segments, texts, features",
        "caps hold, memory and series stay",
        _faults(
            "memory_attacks",
            "test_names_do_not_cost_memory[F31-B41-half-a-million-models]",
            "test_names_do_not_cost_memory[F31-B41-B66-half-a-million-versions-segments-and-texts]",
            "test_names_do_not_cost_memory[F31-B42-feature-explosion]",
        ),
    ),
    "F32": Row(
        "64 file descriptors; a port that is taken; a broker's name or port that nobody has",
        "works, or names what is wrong",
        _faults(
            "state_faults",
            "test_a_worker_under_a_limit_counts_or_says_why[F32-64-file-descriptors]",
            "test_a_metrics_port_that_is_taken_is_named[F32-metrics-port-taken]",
            "test_a_broker_that_cannot_be_found_is_named[F32-name-not-known]",
            "test_a_broker_that_cannot_be_found_is_named[F32-ipv6-only-refused]",
        ),
    ),
    "F33": Row(
        "the event loop stands still for longer than a session",
        "as F3; `loop_stall_seconds_max` says how long",
        _faults("process_faults", f"{_STORM}[F33-loop-stalls]", f"{_STORM}[F2-F3-F33-exact]"),
    ),
    "F34": Row(
        "two deployments, or two clusters, under one prefix",
        "the second is refused by name; a running one that was overwritten stops",
        _faults("state_faults", "test_two_deployments_with_one_prefix_are_told_apart[F34-two-deployments-one-prefix]"),
    ),
    "F35": Row(
        "half an hour of traffic with faults on a Poisson clock",
        "exact; memory, descriptors and threads do not grow",
        ("python -m load_tests.soak",),
    ),
}


def table() -> str:
    lines = ["| row | fault | what becomes of it | shown by |", "|---|---|---|---|"]
    lines += [f"| {name} | {row.fault} | {row.expected} | {_shown(row)} |" for name, row in ROWS.items()]
    return "\n".join(lines) + "\n"


def _shown(row: Row) -> str:
    """Files and commands, each once; `pytest -k ROW` finds the parameters."""
    places = dict.fromkeys(shown.split("::")[0] for shown in row.shown)
    return ", ".join(f"`{place}`" for place in places)


def rewritten(text: str) -> str:
    return BLOCK.sub(lambda match: match[1] + table() + match[2], text)


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(rewritten(path.read_text()))
