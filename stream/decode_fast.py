"""The fast tier's tables: a Layout as the tree of wanted keys that the compiled scan walks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xxhash

from detectors.xxh3 import LENGTH_MAX
from stream.columns import I64, U8, Tag
from stream.kernels import rows as fields
from stream.kernels import scan as node
from stream.kernels.rows import ScanTables
from stream.mapping import UNIT_EXPONENT, Keys, Layout

OUTPUT_TAGS = (1 << Tag.MISSING) | (1 << Tag.NUMBER) | (1 << Tag.TEXT) | (1 << Tag.BOOL)
SCORE_TAGS = (1 << Tag.MISSING) | (1 << Tag.NUMBER)
PADDING = b"\0" * 8  # the scan compares keys eight bytes at a time


@dataclass(frozen=True, slots=True)
class FastTier:
    """A compiled layout, and the text of its constant version ("" = the version stands in the event)."""

    tables: ScanTables
    version_text: str

    @classmethod
    def build(cls, layout: Layout) -> FastTier:
        tree = _Tree()
        copies = [pair for column, keys in enumerate(layout.keys) if (pair := tree.want(keys, column))]
        settings = np.zeros(fields.SETTINGS, np.int64)
        settings[fields.MODEL_CONSTANT] = fields.FROM_EVENT
        sources = (layout.prediction_id, layout.model, layout.version, layout.timestamp)
        for field, source in enumerate(sources):
            if source.keys:
                tree.at(source.keys)[node.ROLE] |= 1 << field
        if layout.model.constant is not None:
            name = layout.model.constant
            settings[fields.MODEL_CONSTANT] = layout.models.index(name) if name in layout.models else -1
        settings[fields.MODEL_OPTIONAL] = layout.mapping.model_optional
        settings[fields.VERSION_CONSTANT] = layout.version.constant is not None
        settings[fields.RECORD_TIME] = not layout.timestamp.keys
        settings[fields.UNIT_EXPONENT] = UNIT_EXPONENT.get(layout.mapping.timestamp_unit, fields.NO_UNIT)
        settings[fields.FEATURES_NODE] = tree.place.get(layout.features, 0)
        settings[fields.ID_NODE] = tree.place.get(layout.prediction_id.keys, 0)
        version_text = layout.version.constant or ""
        outputs = [
            (column, SCORE_TAGS if score else OUTPUT_TAGS)
            for column, (output, score) in enumerate(zip(layout.output, layout.score, strict=True))
            if output
        ]
        nodes, keys, slots = tree.tables()
        tables = ScanTables(
            nodes=nodes,
            keys=keys,
            slots=slots,
            outputs=np.array(outputs, np.int64).reshape(-1, 2),
            copies=np.array(copies, np.int64).reshape(-1, 2),
            models=np.array([_hash(name) for name in layout.models], np.uint64),
            features_of=np.array(layout.features_of, np.uint8),
            settings=settings,
            version_constant=np.uint64(_hash(version_text) if version_text else 0),
        )
        return cls(tables, version_text)


class _Tree:
    """Wanted paths by key; node 0 is the event."""

    def __init__(self) -> None:
        self.place: dict[Keys, int] = {(): 0}
        self.rows = [self._row(-1)]
        self.texts = [b""]

    @staticmethod
    def _row(parent: int) -> list[int]:
        row = [-1] * node.NODE_WIDTH
        row[node.ROLE] = row[node.INNER] = row[node.SEEN] = row[node.KEY_START] = row[node.KEY_LENGTH] = 0
        row[node.PARENT] = parent
        return row

    def at(self, keys: Keys) -> list[int]:
        """The row of a path; it and the way to it are made where they are new."""
        if keys not in self.place:
            parent = self.at(keys[:-1])
            parent[node.INNER] = 1
            self.place[keys] = len(self.rows)
            self.rows.append(self._row(self.place[keys[:-1]]))
            self.texts.append(keys[-1].encode())
        return self.rows[self.place[keys]]

    def want(self, keys: Keys, column: int) -> tuple[int, int] | None:
        """Put a column at a path; (column, first column) where another has it already."""
        row = self.at(keys)
        if row[node.COLUMN] >= 0:
            return column, row[node.COLUMN]
        row[node.COLUMN] = column
        return None

    def tables(self) -> tuple[I64, U8, I64]:
        """Node table, key bytes, and the open-addressing table of kernels.scan.lookup_key.

        Keys above LENGTH_MAX are left out: the scan refuses events that have them.
        """
        self.rows[0][node.INNER] = 1
        size = 4
        while size < 4 * len(self.rows):
            size *= 2
        slots = np.full(size, -1, np.int64)
        keys = bytearray()
        for index in range(1, len(self.rows)):
            text, row = self.texts[index], self.rows[index]
            row[node.KEY_START], row[node.KEY_LENGTH] = len(keys), len(text) + 1
            keys += text + b'"' + PADDING
            row[node.PLAIN] = not any(byte < 32 or byte in b'"\\' for byte in text)
            if len(text) > LENGTH_MAX:
                continue
            slot = (xxhash.xxh3_64_intdigest(text) + row[node.PARENT]) % size
            while slots[slot] >= 0:
                slot = (slot + 1) % size
            slots[slot] = index
        return np.array(self.rows, np.int64), np.frombuffer(bytes(keys) + PADDING, np.uint8), slots


def _hash(text: str) -> int:
    return xxhash.xxh3_64_intdigest(text.encode())
