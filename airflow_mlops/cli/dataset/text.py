"""Dataset versions in words."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mlops.cli.dataset.differences import print_columns, print_pins, print_rows, print_rules
from airflow_mlops.cli.dataset.words import (
    compact,
    heading,
    moment,
    more,
    print_pairs,
    print_table,
    short,
    size_text,
    splits_text,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_mlops.primitives.datasets.manifest import Manifest
    from airflow_mlops.stores.datasets.damage import Damage
    from airflow_mlops.stores.datasets.rebuild import Reproduction
    from airflow_mlops.stores.datasets.retention import Pruned

__all__ = [
    "pin_text",
    "print_damage",
    "print_fetched",
    "print_manifest",
    "print_pruned",
    "print_reproduction",
    "print_versions",
    "write_origin",
]

_SHOWN = 5
_PINS = ("sha256", "footer_sha256", "etag", "version_id")


def print_versions(application: str, versions: Sequence[Mapping[str, Any]], number: int) -> None:
    """Print one line a version."""
    if not versions:
        print(f"{application} has no dataset version yet.")
        return
    rows = [["ID", "MADE (UTC)", "ROWS", "SPLITS", "WINDOW", "REFERENCE", "BY"]]
    rows += [
        [
            short(one["id"]),
            moment(one["time"]),
            f"{one['rows']:,}",
            splits_text(one["splits"]),
            f"{one['window'][0][:10]} … {one['window'][1][:10]}",
            ", ".join(one["refs"]) or "-",
            " ".join(one["by"].values()) or "-",
        ]
        for one in versions
    ]
    print_table(rows)
    if number > len(versions):
        print(f"… and {number - len(versions)} older: say --all, or --limit")


def print_manifest(
    manifest: Manifest, refs: Sequence[str], commits: Sequence[Mapping[str, Any]], *, whole: bool = False
) -> None:
    """Print one version."""
    print(f"Dataset {manifest.id}")
    examples, features = manifest.examples, manifest.features
    print_pairs(
        [
            ("application", manifest.application),
            ("purpose", manifest.purpose),
            ("references", ", ".join(refs) or "none"),
            ("rows", f"{manifest.rows:,} ({splits_text(manifest.splits)})"),
            ("window", " … ".join(moment(one) for one in manifest.window)),
            *([("targets known by", moment(manifest.as_of))] if manifest.as_of else []),
            ("split", compact({k: v for k, v in manifest.split.items() if k != "bounds"})),
            ("examples", " ".join(str(examples.get("parquet") or examples.get("sql") or "").split())),
            *((f"  table {name}", compact(table)) for name, table in (examples.get("tables") or {}).items()),
            *([("features", f"{features['service']} (join {features['semantics']})")] if features else []),
        ]
    )
    heading(f"Columns ({len(manifest.columns)})")
    print_table([[c.name, c.type, c.role, c.reference or ""] for c in manifest.columns], "  ")
    _print_views(features)
    _print_sources(manifest, whole=whole)
    if manifest.assumptions:
        heading(f"Assumptions ({len(manifest.assumptions)})")
        print_table(
            [
                [
                    "holds" if rule.get("passed") else str(rule.get("severity")).upper(),
                    str(rule.get("column") or rule.get("rule")),
                    f"expected {rule.get('expected')}, observed {rule.get('observed')}",
                ]
                for rule in manifest.assumptions
            ],
            "  ",
        )
    heading(f"Chunks ({len(manifest.chunks)})")
    chunks = manifest.chunks if whole else manifest.chunks[: 2 * _SHOWN]
    print_table(
        [
            [
                short(c.digest),
                c.split + ("" if c.fold is None else f" fold {c.fold}"),
                f"{c.rows:,}",
                f"{moment(c.start)} … {moment(c.end)}",
            ]
            for c in chunks
        ],
        "  ",
    )
    more(len(manifest.chunks) - len(chunks))
    heading(f"Made {len(commits)} time(s)")
    for commit in commits:
        print(f"  {moment(commit['time'])}  {_who(commit)}")
        if commit.get("report"):
            print(f"    not all assumptions hold: {commit['report']}")


def print_fetched(application: str, found: Mapping[str, Any]) -> None:
    """Print where the files of a version are now."""
    print(f"Dataset {found['dataset_id']} of {application} is in {found['folder']}:")
    for split, files in found["files"].items():
        print(f"  {split}/  {found['rows'][split]:,} rows in {len(files)} file(s)")


def print_damage(found: Mapping[str, Sequence[Damage]], sizes: Mapping[str, tuple[int, int]]) -> None:
    """Print which versions are whole, and what is wrong with the others."""
    for dataset_id, damage in found.items():
        if not damage:
            rows, chunks = sizes[dataset_id]
            print(f"OK       {short(dataset_id)}: {rows:,} rows in {chunks} chunk(s)")
            continue
        print(f"DAMAGED  {short(dataset_id)}:")
        for one in damage:
            print(f"  {one.problem}: {one.address}\n    {one.detail}")
    if len(sizes) < len(found):
        print(
            "\nCure: restore the named objects from a backup; or make the version again with "
            "`airflow-mlops dataset rebuild ID --into FOLDER`."
        )


def print_reproduction(outcome: Reproduction) -> None:
    """Print what came of making a version again."""
    states = Counter(source["state"] for source in outcome.sources)
    print(f"Dataset {outcome.manifest.id}")
    print(f"Sources: {', '.join(f'{number} {state}' for state, number in sorted(states.items())) or 'none'}")
    for source in outcome.sources:
        if source["state"] != "same":
            name = f"{source['of']} {source.get('file') or source['pattern']}"
            at = f" ({source['place']})" if source.get("place") else ""
            print(f"  {source['state'].upper():<8} {name}{at}")
    for note in outcome.notes:
        print(f"Note: {note}")
    if outcome.problem:
        print(f"\nNot made again: {outcome.problem}")
        print(
            "Cure: restore the sources and name their folder by --folder, or `dataset fetch` the stored version."
        )
    elif outcome.identical:
        print(
            f"\nIdentical: {outcome.manifest.rows:,} rows in {len(outcome.manifest.chunks)} chunk(s), and the same id."
        )
    else:
        _print_unlike(outcome)
    if outcome.libraries and not outcome.identical:
        pairs = (f"{name} {then} → {now}" for name, (then, now) in outcome.libraries.items())
        print(f"\nLibraries differ, which may explain it: {', '.join(pairs)}")


def print_pruned(pruned: Pruned) -> None:
    """Print what a prune removed, or would remove, and why the others stay."""
    for verdict in pruned.verdicts:
        going = "would go" if pruned.dry_run else "removed"
        print(f"{'stays' if verdict.keep else going:<9} {short(verdict.id)}  {'; '.join(verdict.reasons)}")
    for note in pruned.notes:
        print(f"Note: {note}")
    verb = "Would remove" if pruned.dry_run else "Removed"
    print(
        f"{verb} {len(pruned.versions)} of {len(pruned.verdicts)} version(s) and {len(pruned.chunks)} chunk file(s)."
    )
    if pruned.dry_run and (pruned.versions or pruned.chunks):
        print("Nothing was removed yet: say --yes.")


def write_origin(folder: Path, manifest: Manifest, address: str) -> None:
    """Write beside the files of a version where they came from."""
    keys = ", ".join(manifest.names("key"))
    lines = [
        f"# Dataset version {short(manifest.id)} of {manifest.application}",
        "",
        f"- id: `{manifest.id}`",
        f"- manifest: `{address}`, a copy is in manifest.json",
        f"- rows: {splits_text(manifest.splits)}",
        f"- window: {' … '.join(manifest.window)}",
        f"- keys: {keys}; time: {', '.join(manifest.names('timestamp'))}",
        f"- model inputs: {', '.join(manifest.model_inputs) or 'none'}",
        f"- targets: {', '.join(manifest.names('target')) or 'none'}",
        "",
        "Each folder is one split; its files in order of their names are its rows in order.",
        f"Whether the stored version is whole says `airflow-mlops dataset verify {short(manifest.id)}`.",
    ]
    (folder / "README.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _print_unlike(outcome: Reproduction) -> None:
    chunks, found = outcome.chunks, outcome.difference or {}
    total = len(outcome.manifest.chunks)
    if outcome.same_rows:
        print(f"\nThe rows are identical ({total} chunks); what the version says about itself is not.")
    else:
        print(
            f"\nNot identical: {len(chunks['same'])} of {total} chunks came out again, {len(chunks['new'])} are new."
        )
        spans = {chunk.digest: chunk for chunk in outcome.manifest.chunks}
        for digest in chunks["lost"][:_SHOWN]:
            chunk = spans[digest]
            print(f"  lost  {short(digest)}  {chunk.split}  {moment(chunk.start)} … {moment(chunk.end)}")
        more(len(chunks["lost"]) - _SHOWN)
    if "rows" in found:
        print_rows(found["rows"])
    if "rows_unknown" in found:
        print(f"  Rows cannot be compared: {found['rows_unknown']}")
    if found:
        print_columns(found["columns"])
        print_pins(found["pins"])
        print_rules(found["rules"])


def _print_views(features: Mapping[str, Any] | None) -> None:
    views = (features or {}).get("views", ())
    if not views:
        return
    heading(f"Feature views ({len(views)})")
    rows = []
    for view in views:
        keys = ", ".join(view.get("keys", {})) or "nothing"
        ttl = f"{view.get('ttl_seconds', 0):g} s" if view.get("ttl_seconds") else "for ever"
        rows.append(
            [str(view["name"]), f"by {keys}", f"valid {ttl}", f"{len(view.get('features', ()))} features"]
        )
    print_table(rows, "  ")


def _print_sources(manifest: Manifest, *, whole: bool) -> None:
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for pin in manifest.sources:
        groups.setdefault((str(pin.get("of")), str(pin.get("pattern", ""))), []).append(pin)
    heading(f"Sources ({len(manifest.sources)})")
    for (of, pattern), pins in groups.items():
        files = [pin for pin in pins if "file" in pin]
        size = sum(int(pin.get("bytes", 0)) for pin in files)
        print(f"  {of}  {pattern}" + (f"  ({len(files)} files, {size_text(size)})" if files else ""))
        shown = pins if whole else pins[:_SHOWN]
        for pin in shown:
            print(f"    {pin_text(pin)}")
        more(len(pins) - len(shown), "    ")


def pin_text(pin: Mapping[str, Any]) -> str:
    """A pin in one line."""
    if "file" not in pin:
        return ", ".join(f"{key.replace('_', ' ')} {pin[key]}" for key in pin if key not in ("of", "pattern"))
    digests = [f"{key} {str(pin[key])[:16]}" for key in _PINS if key in pin]
    return f"{pin['file']}  {size_text(int(pin.get('bytes', 0)))}  {', '.join(digests)}"


def _who(commit: Mapping[str, Any]) -> str:
    who = (
        " ".join(str(commit[key]) for key in ("dag_id", "task_id", "run_id") if commit.get(key)) or "by hand"
    )
    libraries = ", ".join(f"{name} {number}" for name, number in (commit.get("libraries") or {}).items())
    line = commit.get("line") or commit.get("ref")
    return who + (f", line {line}" if line else "") + (f" ({libraries})" if libraries else "")
