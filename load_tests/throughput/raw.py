"""driftline's transport alone: fetched record batches as bytes, framed by the compiled kernel."""

from __future__ import annotations

from collections.abc import AsyncIterator

from aiokafka import AIOKafkaConsumer

from stream import chunks
from stream.columns import Records
from stream.raw_fetch import install_raw_fetch
from stream.transport import EVENTS_PER_CHUNK


async def raw_batches(bootstrap: str, topic: str) -> AsyncIterator[Records]:
    """Everything in the topic, a chunk of one partition at a time, then whatever comes."""
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=bootstrap,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        max_partition_fetch_bytes=4 << 20,
    )
    await consumer.start()
    install_raw_fetch(consumer._fetcher, frozenset({topic}))
    try:
        while True:
            for tp, pieces in (await consumer.getmany(timeout_ms=1000)).items():
                for chunk in chunks.chunks(tp.topic, tp.partition, pieces, EVENTS_PER_CHUNK, None):
                    yield chunks.records_of(chunk, chunk.first_offset)
    finally:
        await consumer.stop()
