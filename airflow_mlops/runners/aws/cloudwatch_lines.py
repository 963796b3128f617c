"""Lines of a job's output out of CloudWatch: a cursor that goes on after a break, without gap or double line."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from airflow_mlops.runners.lines import LineCutter
from airflow_mlops.runners.protocol import LogLine

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_mlops.hooks.aws.cloudwatch import CloudWatchHook


def new_lines(hook: CloudWatchHook, stream: str, since: str = "") -> Iterator[LogLine]:
    """Lines of a stream behind a cursor.

    Several lines may have come in one millisecond, so the cursor says how many of them there were before it.

    :param since: cursor of the last line; empty for all.
    """
    last, _, number = since.partition("#")
    skip = int(number or 0) + 1 if last else 0
    counted, stamp = 0, ""
    for moment, message in hook.events(stream, _milliseconds(last) if last else 0):
        at = _stamp(moment)
        if at != stamp:
            counted, stamp = 0, at
        cutter = LineCutter()
        for text in [*cutter.feed(message.encode()), *cutter.flush()] or [""]:
            if at != last or counted >= skip:
                yield LogLine(f"{at}#{counted}" if counted else at, text)
            counted += 1


def _stamp(milliseconds: int) -> str:
    moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{milliseconds % 1000:03d}Z"


def _milliseconds(stamp: str) -> int:
    whole, _, fraction = stamp.removesuffix("Z").partition(".")
    return int(datetime.fromisoformat(f"{whole}+00:00").timestamp()) * 1000 + int(fraction or 0)
