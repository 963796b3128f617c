"""What must fit between several files: views, services and entities that feature pipelines define, and who uses them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mlops.spec.application import ApplicationSpec
from airflow_mlops.spec.features.pipeline import FeaturesSpec
from airflow_mlops.spec.reading.problems import Problem, dotted
from airflow_mlops.spec.values import AssetSchedule

if TYPE_CHECKING:
    from airflow_mlops.spec.reading.loader import LoadedFile

__all__ = ["clashes", "doubts"]

_ASSET = ".features"
_Definition = tuple[tuple[str | int, ...], Any]


def clashes(files: Iterable[LoadedFile]) -> dict[Path, list[Problem]]:
    """Names that two files define, of which the registries hold one: whichever was applied last.

    Views and services of feature pipelines must be defined once, and so must the registered model of an application:
    two that share one move each other's champion. An entity may stand in several files, with one join key and type.

    :return: problems by file; empty when everything fits.
    """
    files = list(files)
    defined: dict[tuple[str, str], list[tuple[LoadedFile, _Definition]]] = defaultdict(list)
    for file in files:
        if isinstance(file.spec, FeaturesSpec):
            for noun, name, definition in _definitions(file.spec):
                defined[noun, name].append((file, definition))
    found: dict[Path, list[Problem]] = defaultdict(list)
    for (noun, name), places in defined.items():
        if len({repr(said) for _, (_, said) in places}) < 2:
            continue
        for file, (keys, _) in places:
            others = sorted({str(other.path) for other, _ in places if other is not file})
            if others:
                what = f"defines the {noun} {name} otherwise than {', '.join(others)}"
                cure = f"give one of them another name, or the same {noun} the same words"
                found[file.path].append(Problem(file.place(*keys), dotted(keys), what, cure=cure))
    for path, problem in _shared_models(files):
        found[path].append(problem)
    return dict(found)


def _shared_models(files: Iterable[LoadedFile]) -> Iterator[tuple[Path, Problem]]:
    """Applications with one registered model."""
    by_model: dict[str, list[LoadedFile]] = defaultdict(list)
    for file in files:
        if isinstance(file.spec, ApplicationSpec):
            by_model[file.spec.registration.model].append(file)
    for model, owners in by_model.items():
        for file in owners if len(owners) > 1 else ():
            others = ", ".join(f"{other.name} ({other.path})" for other in owners if other is not file)
            yield (
                file.path,
                Problem(
                    file.place("registration", "model"),
                    "registration.model",
                    f"is also the registered model of {others}: each would move the champion of the other",
                    "a model of its own",
                    model,
                    cure="give one of them another registration.model",
                ),
            )


def doubts(files: Iterable[LoadedFile]) -> list[Problem]:
    """What may be a slip, and may be right: names that none of these files defines.

    :return: services of views that may be in Feast's registry already, and schedules on feature pipelines
        that may be kept elsewhere.
    """
    files = list(files)
    pipelines = [(file, file.spec) for file in files if isinstance(file.spec, FeaturesSpec)]
    views = {view.name for _, spec in pipelines for view in spec.views}
    assets = {f"{spec.features}{_ASSET}" for _, spec in pipelines}
    found: list[Problem] = []
    for file, spec in pipelines:
        for service, members in spec.services.items():
            for number, member in enumerate(members):
                if member.view not in views:
                    keys: tuple[str | int, ...] = ("services", service, number)
                    what = f"names the view {member.view}, which none of these files defines"
                    cure = f"nothing, if Feast's registry has it; known here: {', '.join(sorted(views))}"
                    found.append(Problem(file.place(*keys), dotted(keys), what, cure=cure))
    for file in files if pipelines else ():
        for keys, schedule in _schedules(file.spec):
            for name in schedule.assets if isinstance(schedule, AssetSchedule) else ():
                if name.endswith(_ASSET) and name not in assets:
                    what = f"waits for {name}, which none of these files makes"
                    cure = f"nothing, if it is kept elsewhere; known here: {', '.join(sorted(assets))}"
                    found.append(Problem(file.place(*keys), dotted(keys), what, cure=cure))
    return found


def _definitions(spec: FeaturesSpec) -> Iterator[tuple[str, str, _Definition]]:
    entities: dict[str, _Definition] = {}
    for number, view in enumerate(spec.views):
        yield "view", view.name, (("views", number), (spec.features, number))
        for name, entity in view.entities.items():
            said = (entity.join_key or name, entity.type)
            entities.setdefault(name, (("views", number, "entities", name), said))
    for name, definition in entities.items():
        yield "entity", name, definition
    for service in spec.services:
        yield "service", service, (("services", service), spec.features)


def _schedules(spec: ApplicationSpec | FeaturesSpec) -> list[tuple[tuple[str | int, ...], Any]]:
    if isinstance(spec, FeaturesSpec):
        return [(("schedule",), spec.schedule)]
    return [
        (("provisioning", "schedule"), spec.provisioning.schedule),
        (("monitoring", "schedule"), spec.monitoring.schedule),
        *(
            (("delivery", number, item.kind, "schedule"), getattr(item.form, "schedule", None))
            for number, item in enumerate(spec.delivery)
        ),
    ]
