"""Pages that are given back: which parts of a map of memory may be."""

from __future__ import annotations

import gc
import weakref

from stream import give_back

MAPS = """\
1000-3000 r-xp 00000000 00:00 1 /lib/libllvmlite.so
Rss: 8 kB
Anonymous: 0 kB
3000-4000 r--p 00000000 00:00 1 /lib/libllvmlite.so
Rss: 4 kB
Anonymous: 4 kB
4000-5000 rw-p 00000000 00:00 1 /lib/libllvmlite.so
Anonymous: 0 kB
5000-9000 r-xp 00000000 00:00 2 /lib/libother.so
Anonymous: 0 kB
9000-a000 rw-p 00000000 00:00 0
Anonymous: 0 kB
"""


def test_only_parts_that_the_file_still_has_and_nobody_may_write():
    assert list(give_back.clean_parts(MAPS.splitlines(), "libllvmlite")) == [(0x1000, 0x2000)]


def test_compiled_code_goes_on_after_the_compiler_was_given_back():
    from detectors.normal import cdf

    before = cdf(0.3)
    give_back.compiler()
    give_back.trim()
    held = [
        line
        for line in give_back.MAPS.read_text().split("libllvmlite")[1].splitlines()[1:3]
        if line.startswith("Rss") and int(line.split()[1]) > 4_000
    ]
    assert not held
    assert cdf(0.3) == before


def test_a_large_buffer_in_a_young_cycle_is_freed_although_few_objects_were_made():
    class Reader:
        pass

    gone: list[str] = []
    gc.disable()
    try:
        reader = Reader()
        reader.itself, reader.fetched = reader, bytearray(1 << 20)
        weakref.finalize(reader, gone.append, "reader")
        del reader
        assert not gone
        give_back.trim()
        assert gone == ["reader"]
    finally:
        gc.enable()
