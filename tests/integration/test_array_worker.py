"""Arrays through a whole worker on the real broker, with values that are no arrays and one very long."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import orjson
import pytest

_spec = spec_from_file_location("array_worker_bench", Path(__file__).with_name("worker_bench.py"))
bench_module = sys.modules["array_worker_bench"] = module_from_spec(_spec)
_spec.loader.exec_module(bench_module)

LENGTH = 8
ODD = (b"[]", b"7", b"true", b"{}", b"[1,2]", b"[[1]]", b"[1,2,3,4,5,6,7,1e400]", b"[1,2,3,4,5,6,7,NaN]", b"[true,2,3,4,5,6,7,8]",
       b"[1,2,3,4,5,6,7,null]", b"[" + b"1," * 200_000 + b"1]", b'"text"', b"1e400")  # fmt: skip
GOOD = (b"[-0.0,2,3,4,5,6,7,-0]", b"[1,2,3,4,5,6,7,99999999999999999999999]")


def arrays(bench, n: int, *, turned: bool) -> list[tuple[int, bytes | None]]:
    """Every event that is one gets an array; one in 50 another value, in turn."""
    found = []
    for number, (partition, value) in enumerate(bench.events(n)):
        numbers = orjson.dumps(bench_module.vector(bench.r, LENGTH, turned=turned))
        odd = (*ODD, *GOOD)[number // 50 % (len(ODD) + len(GOOD))]
        chosen = odd if number % 50 == 20 else numbers
        found.append((partition, value and value.replace(b'"amount"', b'"vector": ' + chosen + b', "amount"')))
    return found


@pytest.mark.kafka
def test_a_worker_counts_arrays_as_a_recount_does_and_alarms_where_they_turn(kafka, prefix, tmp_path):
    b = bench_module.Bench(kafka.bootstrap_servers, prefix, tmp_path, partitions=2, dimension=LENGTH)
    b.produce(arrays(b, 6_000, turned=False), compressions=(None, "zstd"))
    turned_ms = b.clock_ms
    b.produce(arrays(b, 6_000, turned=True), compressions=(None, "zstd"))
    b.drain()
    bench_module.assert_equal_to_recount(b)
    values = {
        w["window"]["start_ms"]: w["rows"]["mmd_random_features(vector)"]["value"] for w in b.windows() if "rows" in w
    }
    before = [value for start, value in values.items() if start < turned_ms - 6_000]
    after = [value for start, value in values.items() if start > turned_ms + 1_000]
    assert before
    assert max(before) < 0.02
    assert after
    assert min(after) > 0.05
    opened = [
        body
        for body in (orjson.loads(r.value) for r in b.read(f"{prefix}alerts") if r.value)
        if "opened" in body["type"]
    ]
    assert "vector[]" in {body["data"]["target"] for body in opened}
    shares = [window["targets"]["vector"]["invalid"] for window in b.windows() if "rows" in window]
    assert 0.005 < min(shares) <= max(shares) < 0.04, shares
