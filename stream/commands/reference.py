"""reference build, list, promote, rollback."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stream.commands.shared import (
    CONFIG_FILE,
    ConfigOption,
    ExitCode,
    Output,
    OutputOption,
    exits,
    loaded_config,
    permitted_config,
    print_json,
    print_table,
    stop,
)

if TYPE_CHECKING:
    from detectors.reference import ReferenceProfile
    from stream.references import ActiveReference

app = typer.Typer(no_args_is_help=True, help="What is normal: build, store and activate references.")
SHORT = len("sha256:") + 12  # as much of an id as a person compares
ModelArgument = Annotated[str, typer.Argument(help="The model, by the name that its events carry.")]


@app.command("build")
@exits
def build(
    model: Annotated[list[str] | None, typer.Argument(help="Models; none = all that name a file.")] = None,
    config: ConfigOption = Path(CONFIG_FILE),
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only look; nothing is stored, no broker is asked.")
    ] = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """Build references from the configured files and store them; `promote` makes one the active one."""
    from detectors.reference_build import left_out
    from stream.config_errors import unknown_name
    from stream.left_out import not_watched
    from stream.preflight import build_from_file

    settings = loaded_config(config).config
    for name in model or ():
        if name not in settings.models:
            stop(f"there is no model {name}.  {unknown_name(name, settings.models)}", ExitCode.USAGE)
    named = model or [name for name, own in settings.models.items() if own.reference.file is not None]
    if not named:
        stop("no model names a reference file: all are learnt from the stream", ExitCode.USAGE)
    built = {name: build_from_file(settings, name) for name in named}
    if not dry_run:
        from stream.references import store
        from stream.rights import Use
        from stream.rights_check import require_rights

        require_rights(settings, Use.REFERENCE_WRITE)
        for profile in built.values():
            store(settings, profile)
    if output is Output.JSON:
        print_json([_described(profile) | {"stored": not dry_run} for profile in built.values()])
        return
    for name, profile in built.items():
        windows = profile.windows
        print(
            f"{name}: {profile.id}\n  {profile.rows:,} rows, {len(profile.targets)} targets, {windows.count:,} windows of "
            f"{windows.every_ms / 1000:g} s with {windows.size_min:,} to {windows.size_max:,} events"
        )
        lacking = left_out(profile).values()
        for note in (*(note for note in profile.notes if note not in lacking), *not_watched(settings, profile)):
            print(f"  {note}")
        if not dry_run:
            print(f"  stored; to use it:  driftline reference promote {name} {profile.id[:SHORT]}")


@app.command("list")
@exits
def list_references(config: ConfigOption = Path(CONFIG_FILE), output: OutputOption = Output.TEXT) -> None:
    """All stored references, and which one is active for each model."""
    from stream.references import active_references, stored_references
    from stream.rights import Use

    settings = permitted_config(config, Use.REFERENCE_LIST)
    stored, active = stored_references(settings), active_references(settings)
    if output is Output.JSON:
        print_json([_described(profile) | _state(profile, active) for profile in stored.values()])
        return
    rows = [
        [
            profile.model,
            profile.id[:SHORT],
            str(_state(profile, active)["state"]),
            f"{profile.rows:,}",
            f"{profile.windows.count:,}",
            str(profile.origin.get("file") or f"first {profile.origin.get('first', '?')} events"),
        ]
        for profile in sorted(stored.values(), key=lambda profile: (profile.model, profile.id))
    ]
    print_table(["model", "reference", "state", "rows", "windows", "from"], rows)


@app.command("promote")
@exits
def promote(
    model: ModelArgument,
    reference: Annotated[str, typer.Argument(help="Its id, or the beginning of it.")],
    config: ConfigOption = Path(CONFIG_FILE),
    output: OutputOption = Output.TEXT,
) -> None:
    """Make a stored reference the active one; running workers follow at their next pane."""
    from stream import references
    from stream.rights import Use

    settings = permitted_config(config, Use.REFERENCE_WRITE)
    stored = references.stored_references(settings)
    wanted = reference if ":" in reference else f"sha256:{reference}"
    found = [name for name in stored if name.startswith(wanted)]
    if len(found) != 1:
        known = ", ".join(sorted(name[:SHORT] for name in stored)) or "none"
        stop(f"{len(found)} stored references begin with {wanted}; stored: {known}")
    _report(references.promote(settings, model, found[0]), output)


@app.command("rollback")
@exits
def rollback(
    model: ModelArgument, config: ConfigOption = Path(CONFIG_FILE), output: OutputOption = Output.TEXT
) -> None:
    """Make the reference that was active before the active one again."""
    from stream import references
    from stream.rights import Use

    _report(references.rollback(permitted_config(config, Use.REFERENCE_WRITE), model), output)


def _report(active: ActiveReference, output: Output) -> None:
    if output is Output.JSON:
        print_json(
            {
                "model": active.model,
                "reference": active.reference,
                "revision": active.revision,
                "state": active.state,
                "history": list(active.history),
            }
        )
        return
    print(f"{active.model}: {active.reference} is active (revision {active.revision})")


def _described(profile: ReferenceProfile) -> dict[str, Any]:
    windows = profile.windows
    return {
        "model": profile.model,
        "reference": profile.id,
        "rows": profile.rows,
        "targets": {target.name: target.binning.kind.value for target in profile.targets},
        "windows": {
            "count": windows.count,
            "every_ms": windows.every_ms,
            "size_min": windows.size_min,
            "size_max": windows.size_max,
            "checked": windows.checked,
        },
        "origin": dict(profile.origin),
        "notes": list(profile.notes),
    }


def _state(profile: ReferenceProfile, active: dict[str, ActiveReference]) -> dict[str, Any]:
    """The state of this profile: that of the control record that names it, "before" if it was active, else "stored"."""
    record = active.get(profile.model)
    if record is not None and record.reference == profile.id:
        return {"state": record.state, "revision": record.revision}
    return {"state": "before" if record is not None and profile.id in record.history else "stored", "revision": None}
