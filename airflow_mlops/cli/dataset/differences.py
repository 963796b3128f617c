"""The difference of two dataset versions in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_mlops.cli.dataset.words import (
    brief,
    compact,
    heading,
    more,
    number_text,
    print_table,
    short,
    splits_text,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_mlops.primitives.datasets.manifest import Manifest

__all__ = ["print_columns", "print_difference", "print_pins", "print_rows", "print_rules"]

_SHOWN = 5
#: A population stability index that is commonly read as another distribution.
_MOVED = 0.25


def print_difference(old: Manifest, new: Manifest, found: Mapping[str, Any]) -> None:
    """Print how two versions differ."""
    for name, manifest in (("old", old), ("new", new)):
        print(f"{name}  {short(manifest.id)}  {manifest.rows:,} rows ({splits_text(manifest.splits)})")
    if found["same"]:
        print("\nThey are the same version.")
        return
    print(f"     {found['shared_chunks']} of {len(old.chunks)} and {len(new.chunks)} chunks are shared")
    print_columns(found["columns"])
    changed = {name: pair for name, pair in found["splits"].items() if pair[0] != pair[1]}
    if changed:
        heading("Splits")
        print_table([[name, f"{a:,}", "→", f"{b:,}"] for name, (a, b) in changed.items()], "  ")
    if "rows" in found:
        print_rows(found["rows"])
    if "distributions" in found:
        _print_distributions(found["distributions"])
    print_pins(found["pins"])
    print_rules(found["rules"])


def print_rows(rows: Mapping[str, Any]) -> None:
    """Print rows that were added, removed, changed or moved, with examples."""
    heading("Rows")
    signs = {"added": "+", "removed": "-", "changed": "~", "moved": ">"}
    words = {"moved": "in another split"}
    for kind, sign in signs.items():
        number = rows[kind]["rows"]
        columns = rows[kind].get("columns")
        inside = f" ({', '.join(f'{name} in {n:,}' for name, n in columns.items())})" if columns else ""
        print(f"  {sign} {number:,} {words.get(kind, kind)}{inside}")
        for example in rows[kind]["examples"]:
            keys = ", ".join(f"{name}={value}" for name, value in example["keys"].items())
            values = [f"{name} {a} → {b}" for name, (a, b) in example.get("values", {}).items()]
            values += [" → ".join(example["split"])] if "split" in example else []
            print(f"      {keys}" + (f": {', '.join(values)}" if values else ""))
        more(number - len(rows[kind]["examples"]) if number else 0, "      ")


def print_columns(columns: Mapping[str, Any]) -> None:
    """Print columns that came, went or changed."""
    lines = [
        f"  + {one['column']}  {one['type']}  {one['role']}  {one['reference'] or ''}"
        for one in columns["added"]
    ]
    lines += [f"  - {one['column']}  {one['type']}  {one['role']}" for one in columns["removed"]]
    for one in columns["changed"]:
        parts = [f"{key} {a or 'none'} → {b or 'none'}" for key, (a, b) in list(one.items())[1:]]
        lines.append(f"  ~ {one['column']}  {', '.join(parts)}")
    lines += ["  > their order changed"] if columns["moved"] else []
    if lines:
        heading("Columns")
        print("\n".join(line.rstrip() for line in lines))


def _print_distributions(columns: Sequence[Mapping[str, Any]]) -> None:
    if not columns:
        return
    heading("Distributions (PSI: below 0.1 the same, above 0.25 another one)")
    rows = [["COLUMN", "MISSING", "VALUES", "PSI"]]
    for one in sorted(columns, key=lambda one: -one["psi"]):
        before, after = one["missing"]
        if one["kind"] == "number":
            pairs = zip(one["mean"], one["std"], strict=True)
            values = " → ".join(f"{number_text(mean)} ± {number_text(std)}" for mean, std in pairs)
        else:
            top = list(one["top"].items())[:3]
            values = ", ".join(f"{name} {a:.1%} → {b:.1%}" for name, (a, b) in top)
        mark = " !" if one["psi"] >= _MOVED else ""
        rows.append([one["column"], f"{before:.1%} → {after:.1%}", values, f"{one['psi']:.3f}{mark}"])
    print_table(rows, "  ")


def print_pins(pins: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Print sources that came, went or changed."""
    if not any(pins.values()):
        return
    heading("Sources")
    for kind, sign in (("added", "+"), ("removed", "-"), ("changed", "~")):
        for pin in pins[kind][:_SHOWN]:
            print(f"  {sign} {pin['of']}  {pin.get('file') or pin.get('pattern', '')}{_pin_change(pin)}")
        more(len(pins[kind]) - _SHOWN, f"  {sign} ")


def _pin_change(pin: Mapping[str, Any]) -> str:
    if "before" not in pin:
        return ""
    before, after = pin["before"], pin["after"]
    parts = [
        f"{key.replace('_', ' ')} {brief(before.get(key))} → {brief(after.get(key))}"
        for key in dict.fromkeys((*before, *after))
        if before.get(key) != after.get(key)
    ]
    return f"  {', '.join(parts)}"


def print_rules(rules: Mapping[str, Sequence[Any]]) -> None:
    """Print what was asked for differently."""
    if not rules:
        return
    heading("Asked for")
    for name, (before, after) in rules.items():
        if isinstance(before, dict) and isinstance(after, dict):
            for key in dict.fromkeys((*before, *after)):
                if before.get(key) != after.get(key):
                    print(f"  {name}.{key}")
                    print(f"    - {compact(before.get(key))}\n    + {compact(after.get(key))}")
        elif isinstance(before, list) and isinstance(after, list) and name == "assumptions":
            print(f"  {name}")
            for sign, ours, theirs in (("-", before, after), ("+", after, before)):
                for rule in (rule for rule in ours if rule not in theirs):
                    print(f"    {sign} {compact(rule)}")
        else:
            print(f"  {name}\n    - {compact(before)}\n    + {compact(after)}")
