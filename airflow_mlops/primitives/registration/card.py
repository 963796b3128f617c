"""The model card: what a model is for, what it learned from, how good it is, and where its limits are."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airflow_mlops.primitives.registration.record import TrainingRecord

CARD_MARKDOWN, CARD_HTML = "model_card.md", "model_card.html"
#: Rows behind a slice below which its figure says little.
FEW_ROWS = 200
#: Slices and packages that a card shows at most.
SHOWN = 40
#: Standard errors to either side of a 95 % interval.
_Z = 1.959964


@dataclass(frozen=True)
class Table:
    """Columns and rows of text."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it.

    :param blocks: a text is a paragraph, a list of texts a list, a table a table; text after ``$ `` is a command.
    """

    title: str
    blocks: tuple[str | list[str] | Table, ...]


@dataclass(frozen=True)
class ModelCard:
    """
    The card of one model version.

    :param title: model and version.
    """

    title: str
    sections: tuple[Section, ...]

    def to_markdown(self) -> str:
        """The card as Markdown; whatever stands in a value, it stays text."""
        parts = [f"# {_plain(self.title)}"]
        for section in self.sections:
            parts.append(f"## {section.title}")
            parts += [_markdown(block) for block in section.blocks]
        return "\n\n".join(parts) + "\n"

    def to_html(self) -> str:
        """The card as one HTML page that needs nothing else."""
        body = [f"<h1>{html.escape(self.title)}</h1>"]
        for section in self.sections:
            blocks = "".join(map(_html, section.blocks))
            body.append(f"<section><h2>{html.escape(section.title)}</h2>{blocks}</section>")
        return (
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(self.title)}</title>'
            f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>'
            f"<body><main>{''.join(body)}</main></body></html>\n"
        )


def model_card(
    model: str,
    version: str,
    record: TrainingRecord,
    metrics: Sequence[Mapping[str, Any]],
    decision: Mapping[str, Any],
    about: Mapping[str, Any],
) -> ModelCard:
    """Make the card.

    :param metrics: of the evaluation.
    :param decision: of the gate: ``passed``, ``results``, ``message``.
    :param about: ``description``, ``owner``, and ``limits``: a list of what its owner knows of the model's limits.
    """
    return ModelCard(
        f"{model}, version {version}",
        (
            _purpose(record, about),
            _data(record),
            _performance(metrics),
            _gate(decision),
            Section("Limits", (_limits(record, metrics, decision, about),)),
            _origin(model, version, record),
        ),
    )


def _purpose(record: TrainingRecord, about: Mapping[str, Any]) -> Section:
    rows = [
        ("Owner", about.get("owner")),
        ("Application", record.application),
        ("Paradigm", record.config.get("paradigm")),
        ("Model code", f"{record.code.get('name', '')} {record.code.get('version', '')}"),
        ("Why it was trained", record.reasons),
    ]
    text = str(about.get("description") or "Nobody has written down what this model is for.")
    return Section("Purpose", (text, _pairs(rows)))


def _data(record: TrainingRecord) -> Section:
    data, columns = record.data, record.config.get("columns") or {}
    start, end = ([*(data.get("window") or ()), "", ""])[:2]
    rows = [
        ("Dataset version", data.get("dataset_id")),
        ("Examples from", start),
        ("to", end),
        ("Answers known by", data.get("as_of")),
        *((f"Rows of {name}", f"{rows:,}") for name, rows in (data.get("splits") or {}).items()),
        ("Divided by", (data.get("split") or {}).get("by")),
        ("Feature service", data.get("features")),
        ("Predicts", ", ".join(columns.get("targets") or ())),
        ("From", f"{len(columns.get('features') or ())} inputs: {_some(columns.get('features') or ())}"),
    ]
    return Section("Data", (_pairs(rows),))


def _performance(metrics: Sequence[Mapping[str, Any]]) -> Section:
    whole = [metric for metric in metrics if not metric.get("slice") and metric.get("step") is None]
    sliced = [metric for metric in metrics if metric.get("slice") and metric.get("step") is None]
    blocks: list[str | list[str] | Table] = []
    if whole:
        blocks += ["On examples that the model has never seen:", _figures(whole)]
    else:
        blocks.append("No figure was reported.")
    if sliced:
        left = f" The first {SHOWN} of {len(sliced)}." if len(sliced) > SHOWN else ""
        blocks += [f"In parts of them:{left}", _figures(sliced[:SHOWN], parts=True)]
    return Section("Performance", tuple(blocks))


def _figures(metrics: Sequence[Mapping[str, Any]], *, parts: bool = False) -> Table:
    head = (*(("Part",) if parts else ()), "Metric", "Value", "95 % interval", "Rows")
    rows = []
    for metric in metrics:
        value, error = float(metric["value"]), metric.get("stderr")
        spread = f"{value - _Z * error:.4g} to {value + _Z * error:.4g}" if error is not None else ""
        count = f"{metric['n']:,}" if metric.get("n") is not None else ""
        name = f"{metric['split']}.{metric['name']}" if metric.get("split") else str(metric["name"])
        rows.append((*((str(metric["slice"]),) if parts else ()), name, f"{value:.4g}", spread, count))
    return Table(head, tuple(rows))


def _gate(decision: Mapping[str, Any]) -> Section:
    rows = tuple(
        (
            "passed" if check.get("passed") else "failed",
            *(str(check.get(key) or "") for key in ("rule", "observed")),
        )
        for check in decision.get("results") or ()
    )
    text = str(decision.get("message") or "No gate was asked.")
    return Section("Gate", (text, Table(("", "Rule", "Observed"), rows)) if rows else (text,))


def _limits(
    record: TrainingRecord,
    metrics: Sequence[Mapping[str, Any]],
    decision: Mapping[str, Any],
    about: Mapping[str, Any],
) -> list[str]:
    found = [str(limit) for limit in about.get("limits") or ()]
    end = ([*(record.data.get("window") or ()), "", ""])[1]
    if end:
        found.append(f"It knows nothing of what happened after {end}.")
    small = sorted(
        {str(m["slice"]) for m in metrics if m.get("slice") and (m.get("n") or FEW_ROWS) < FEW_ROWS}
    )
    if small:
        found.append(f"Figures of parts with fewer than {FEW_ROWS} rows say little: {_some(small)}.")
    if not any(metric.get("stderr") is not None for metric in metrics):
        found.append(
            "The model code reports no standard errors: how much of a figure is chance, nobody knows."
        )
    judged = any(check.get("slices") for check in decision.get("results") or ())
    if not judged and not any(metric.get("slice") for metric in metrics):
        found.append("It was not measured in parts of the data: it may be worse in some of them.")
    if str(record.code.get("git_commit") or "").endswith("-dirty"):
        found.append("Its code had changes that were in no commit.")
    return found


def _origin(model: str, version: str, record: TrainingRecord) -> Section:
    code, environment, run = record.code, record.environment, record.run
    packages = environment.get("packages") or {}
    rows = [
        ("Image", code.get("image")),
        ("Image digest", code.get("image_digest")),
        ("Base image digest", code.get("base_digest")),
        ("Command", " ".join(code.get("entrypoint") or ())),
        ("Git commit", code.get("git_commit")),
        ("Python", environment.get("python")),
        ("Packages", f"{len(packages)}, in environment/environment.json of the run" if packages else ""),
        ("Lock file", environment.get("lock_file")),
        ("Seed", record.config.get("seed")),
        ("Parameters", ", ".join(f"{k} = {v}" for k, v in (record.config.get("parameters") or {}).items())),
        ("MLflow run", run.get("run_id")),
        ("Airflow run", f"{run.get('dag_id', '')} {run.get('dag_run', '')}"),
    ]
    how = "Train it again and compare:"
    return Section("Where it comes from", (_pairs(rows), how, f"$ airflow-mlops reproduce {model}/{version}"))


def _pairs(rows: Sequence[tuple[str, Any]]) -> Table:
    shown = [(name, str(value).strip()) for name, value in rows if value not in (None, "")]
    return Table(("", ""), tuple((name, text) for name, text in shown if text))


def _some(names: Sequence[Any]) -> str:
    shown = ", ".join(map(str, names[:SHOWN]))
    return f"{shown} and {len(names) - SHOWN} more" if len(names) > SHOWN else shown


def _plain(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    return re.sub(r"([\\`*_\[\]<>|#!~])", r"\\\1", " ".join(text.split()))


def _markdown(block: str | list[str] | Table) -> str:
    if isinstance(block, str):
        return f"```sh\n{' '.join(block[2:].split())}\n```" if block.startswith("$ ") else _plain(block)
    if isinstance(block, list):
        return "\n".join(f"- {_plain(item)}" for item in block)
    rows = [block.head, tuple("---" for _ in block.head), *(tuple(map(_plain, row)) for row in block.rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _html(block: str | list[str] | Table) -> str:
    if isinstance(block, str):
        if block.startswith("$ "):
            return f"<pre>{html.escape(block[2:])}</pre>"
        return f"<p>{html.escape(block)}</p>"
    if isinstance(block, list):
        return f"<ul>{''.join(f'<li>{html.escape(item)}</li>' for item in block)}</ul>"
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in block.head) if any(block.head) else ""
    rows = "".join(
        f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in block.rows
    )
    return f"<div><table>{f'<tr>{head}</tr>' if head else ''}{rows}</table></div>"


_STYLE = """
:root{color-scheme:light dark;--line:#8884;--quiet:#8888}
body{font:16px/1.5 system-ui,sans-serif;margin:0;padding:2rem 1rem}
main{max-width:50rem;margin:auto}
h1{font-size:1.6rem}h2{font-size:1.15rem;margin-top:2rem;border-bottom:1px solid var(--line)}
div{overflow-x:auto}table{border-collapse:collapse;width:100%}
th,td{text-align:left;vertical-align:top;padding:.25rem .75rem .25rem 0;border-bottom:1px solid var(--line);overflow-wrap:anywhere}
td{font-variant-numeric:tabular-nums}
pre{padding:.75rem;border:1px solid var(--line);border-radius:.4rem;overflow-x:auto}
""".replace("\n", "")
