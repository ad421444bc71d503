"""An alert as a person reads it in a terminal: what, which way, how much, since when, on how many events, and what chance may do.

Everything in an event comes from outside, feature names included: control characters are shown as �, never sent on.
"""

from __future__ import annotations

import re
import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

WIDTH_MIN, WIDTH_MAX = 60, 140
INDENT = 10  # under the severity, so that times stand alone and can be run down
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
COLOURS = {"critical": "1;31", "warning": "1;33", "info": "1;36", "resolved": "1;32"}
SIGMA = ("reference standard deviations", "σ")
ZERO_SHARE = 0.0005  # below half a tenth of a per cent nothing is said of missing values


def render_alert(event: Mapping[str, Any], *, colour: bool | None = None, width: int | None = None) -> str:
    """Two to four lines for one CloudEvents alert. `colour` and `width` default to what standard output is."""
    colour = sys.stdout.isatty() if colour is None else colour
    width = shutil.get_terminal_size((120, 24)).columns if width is None else width
    width = min(max(width, WIDTH_MIN), WIDTH_MAX)
    data = event.get("data", {})
    label = _label(event)
    about = clean(data.get("model") or data.get("topic") or "?")
    plain = f"{_clock(str(event.get('time', '')))}  {label.upper()}  {about} · {headline(data)}"
    lines = textwrap.wrap(plain, width, subsequent_indent=" " * INDENT, break_on_hyphens=False)
    lines[0] = _painted(lines[0], label, colour=colour)
    for detail in _details(data):
        lines += textwrap.wrap(detail, width, initial_indent=" " * INDENT, subsequent_indent=" " * INDENT)
    return "\n".join(lines)


def headline(data: Mapping[str, Any]) -> str:
    """The summary with the unit as people write it."""
    return clean(data.get("summary") or f"{data.get('target', '?')} changed").replace(f" {SIGMA[0]}", SIGMA[1])


def clean(value: object) -> str:
    """Text without anything that a terminal would obey."""
    return CONTROL.sub("�", str(value))


def number(value: float) -> str:
    """Three digits that matter: 0.0123, 4.56, 41, 3,500."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _label(event: Mapping[str, Any]) -> str:
    kind = str(event.get("type", ""))
    return "resolved" if ".resolved." in kind else clean(event.get("data", {}).get("severity", "warning"))


def _clock(text: str) -> str:
    """Time of day in UTC; what cannot be read is shown as it is."""
    try:
        return datetime.fromisoformat(text).astimezone(UTC).strftime("%H:%M:%S")
    except ValueError:
        return clean(text)


def _details(data: Mapping[str, Any]) -> Iterator[str]:
    now, before = data.get("effect", {}).get("now", {}), data.get("effect", {}).get("reference", {})
    parts = []
    if data.get("historical"):
        parts.append("from replayed history")
    if data.get("onset"):
        parts.append(clean(data["onset"]))
    if isinstance(now.get("p50"), int | float) and isinstance(before.get("p50"), int | float):
        parts.append(f"typical value {number(before['p50'])} → {number(now['p50'])}")
    missing, was = now.get("missing") or 0.0, before.get("missing") or 0.0
    if max(missing, was) >= ZERO_SHARE and abs(missing - was) >= ZERO_SHARE:
        parts.append(f"missing {was:.1%} → {missing:.1%}")
    if data.get("largest_changes"):
        change = data["largest_changes"][0]
        parts.append(f"largest change: {clean(change['bin'])} {change['reference']:.1%} → {change['now']:.1%}")
    if parts:
        yield " · ".join(parts)
    second = []
    if data.get("consequence", {}).get("why"):
        second.append(f"performance: {clean(data['consequence']['why'])}")
    if data.get("likely_cause"):
        second.append(f"likely cause: {clean(data['likely_cause'])}")
    second += [f"{name}: {clean(data[name])}" for name in ("owner", "runbook") if data.get(name)]
    if data.get("incident"):
        second.append(f"incident {clean(data['incident'])[:12]}")
    if second:
        yield " · ".join(second)


def _painted(line: str, label: str, *, colour: bool) -> str:
    if not colour:
        return line
    return line.replace(label.upper(), f"\x1b[{COLOURS.get(label, '1')}m{label.upper()}\x1b[0m", 1)
