"""The texts behind a sample's TEXT cells, so that a learnt reference names categories as people do: hash -> text.

Which texts a sample carries is a function of its rows alone: of every target those of the first SAMPLE_TEXTS_MAX distinct
hashes, in the order of the rows. A row's place only ever grows while rows enter a bottom-k sample, so a text that is carried in the
end was carried ever since its row entered: looking at the rows that enter is enough, and neither the cut of the log, nor a
snapshot, nor the order of merging shows. A text that is not known is left out: its hash names it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from stream.columns import I64, U8, U64, Tag
from stream.limits import SAMPLE_TEXT_CHARACTERS_MAX, SAMPLE_TEXTS_MAX

Texts = dict[int, str]
TextsOf = Callable[[int], Texts]  # of the TEXT cells of one row
SECTIONS = ("text_hash", "text_length", "text_bytes")


def shown(text: str) -> str:
    """A long text is cut; its hash at the end keeps it apart from others that begin alike."""
    if len(text) <= SAMPLE_TEXT_CHARACTERS_MAX:
        return text
    mark = f"…#{xxhash.xxh3_64_hexdigest(text.encode())}"
    return text[: SAMPLE_TEXT_CHARACTERS_MAX - len(mark)] + mark


def wanted(cell: U64, tag: U8) -> set[int]:
    """Hashes whose texts a sample of these rows (cell U64[k, t], tag U8[k, t]) carries."""
    found: set[int] = set()
    is_text = tag == Tag.TEXT
    for target in np.flatnonzero(is_text.any(axis=0)):
        hashes, first = np.unique(cell[is_text[:, target], target], return_index=True)
        found.update(hashes[np.argsort(first)[:SAMPLE_TEXTS_MAX]].tolist())
    return found


def carried(texts: Mapping[int, str], cell: U64, tag: U8) -> Texts:
    """Of the known `texts` those that a sample of these rows carries, by hash."""
    return {key: texts[key] for key in sorted(wanted(cell, tag)) if key in texts} if texts else {}


def entered(texts: Texts, cell: U64, tag: U8, row: I64, texts_of: TextsOf) -> Texts:
    """`texts` of a sample after rows entered it. `row` I64[k]: where each stands in the chunk, -1 = it was in the sample
    before. Only rows with a text that is not known yet are read again: about 20 us each.
    """
    places = np.flatnonzero(row >= 0)
    cells, is_text = cell[places], tag[places] == Tag.TEXT
    unknown = set(cells[is_text].tolist()) - texts.keys()
    unknown &= wanted(cell, tag) if unknown else set()
    if not unknown:
        return texts
    found = dict(texts)
    open_cells = is_text & np.isin(cells, np.array(sorted(unknown), np.uint64))
    for place in np.flatnonzero(open_cells.any(axis=1)).tolist():
        missing = [key for key in cells[place][open_cells[place]].tolist() if key not in found]
        if missing:
            own = texts_of(int(row[places[place]]))
            found |= {key: shown(own[key]) for key in missing if key in own}
    return carried(found, cell, tag)


def pack(texts: Mapping[int, str]) -> dict[str, NDArray[Any]]:
    """Arrays by the names of SECTIONS."""
    encoded = [text.encode() for text in texts.values()]
    return {
        "text_hash": np.array(list(texts), np.uint64),
        "text_length": np.array([len(text) for text in encoded], np.uint32),
        "text_bytes": np.frombuffer(b"".join(encoded), np.uint8),
    }


def unpack(key: U64, length: NDArray[Any], data: U8) -> Texts:
    """Inverse of `pack`. Raises ValueError for lengths that do not fit or bytes that are no text."""
    ends = np.cumsum(length, dtype=np.int64).tolist()
    if len(key) != len(ends) or (ends[-1] if ends else 0) != len(data):
        raise ValueError(f"texts: {len(key)} hashes, {len(ends)} lengths, {len(data)} bytes")
    whole = data.tobytes()
    starts = [0, *ends]
    return {name: whole[start:stop].decode() for name, start, stop in zip(key.tolist(), starts, ends, strict=False)}
