"""Rows that an HTTP server hands out: JSON, CSV or Parquet."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from airflow_mlops.exceptions import SourceError, SourceUnavailableError
from airflow_mlops.hooks.connections.find import find_connection
from airflow_mlops.primitives.texts.documents import json_text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from airflow_mlops.primitives.features.watermark import ReadWindow

__all__ = ["fetch_pages"]

#: Bytes of one answer, and of all answers together, that are taken.
PAGE_LIMIT, TOTAL_LIMIT = 256 * 1024**2, 8 * 1024**3
#: Answers that are fetched one after the other.
PAGES = 10_000
REDIRECTS = 5
#: Seconds until the server must take the connection, and between two pieces of its answer.
TIMEOUT = (10, 60)
#: An end of the window in the value of a parameter.
_END = re.compile(r"(?<![:\w]):(after|until)\b")
_SUFFIXES = {"json": ".json", "csv": ".csv", "parquet": ".parquet"}


def fetch_pages(http: Mapping[str, Any], window: ReadWindow, folder: Path) -> list[Path]:
    """Fetch all answers into files, following the link to the next one.

    That link stands in the header ``Link`` (``rel="next"``), or in the JSON at ``next``. It must lead to the
    same server, because the connection's login goes with it.

    :param http: ``connection``, ``endpoint``, ``format``, ``params``, ``records`` and ``next``.
    :param window: its ends replace ``:after`` and ``:until`` among the values of ``params``; one that is open
        takes its parameter with it.
    :raises SourceError: the server refuses, or its answer is too long or not of the format.
    :raises SourceUnavailableError: the server does not answer, or says that it cannot now.
    """
    form = str(http.get("format") or "json")
    if form not in _SUFFIXES:
        raise SourceError(f"extract: http: format {form!r} is unknown; expected {', '.join(_SUFFIXES)}")
    session, url = _open(str(http["connection"]), str(http.get("endpoint") or ""))
    params: Any = _params(http.get("params") or {}, window)
    folder.mkdir(parents=True, exist_ok=True)
    files: list[Path] = []
    total, seen, first = 0, {url}, url
    with session:
        while True:
            raw = folder / f"page-{len(files):05d}{_SUFFIXES[form]}"
            link = _download(session, url, params, raw)
            total += raw.stat().st_size
            if form == "json":
                link = _records(raw, http.get("records"), http.get("next"), _shown(url)) or link
            files.append(raw)
            if link is None:
                return files
            url, params = _next(first, url, link), None
            if url in seen or len(files) >= PAGES or total > TOTAL_LIMIT:
                raise SourceError(
                    f"extract: {_shown(first)} leads on and on: {len(files)} answers with {total} bytes, next "
                    f"{_shown(url)}. Cure: ask for less by params, such as :after"
                )
            seen.add(url)


def _open(conn_id: str, endpoint: str) -> tuple[Any, str]:
    from airflow.sdk.exceptions import AirflowException

    try:
        from airflow.providers.http.hooks.http import HttpHook
    except ImportError as error:
        raise SourceError(
            'extract: http needs the HTTP provider. Cure: pip install "airflow-mlops[http]"'
        ) from error
    try:
        find_connection(conn_id, SourceError, "http")
        hook = HttpHook(method="GET", http_conn_id=conn_id)
        session = hook.get_conn(extra_options={"stream": True})
    except (AirflowException, ValueError) as error:
        raise SourceError(f"connection {conn_id}: {error}. Cure: give it type http and a host") from error
    return session, hook.url_from_endpoint(endpoint)


def _download(session: Any, url: str, params: Any, target: Path) -> str | None:
    """Write one answer to a file, and return its header's link to the next."""
    import requests

    try:
        with _get(session, url, params) as answer:
            _refused(answer, url)
            size = 0
            with target.open("wb") as sink:
                for block in answer.iter_content(1 << 20):
                    size += len(block)
                    if size > PAGE_LIMIT:
                        raise SourceError(
                            f"extract: {_shown(url)} answers with more than {PAGE_LIMIT} bytes. Cure: ask for less "
                            "at a time, by params"
                        )
                    sink.write(block)
            found = answer.links.get("next", {}).get("url")
            return None if found is None else str(found)
    except requests.exceptions.RequestException as error:
        # Its text holds the whole address, and that may hold a key.
        raise SourceUnavailableError(
            f"extract: {_shown(url)} does not answer ({type(error).__name__}); it is tried again"
        ) from None


def _get(session: Any, url: str, params: Any) -> Any:
    """The answer at an address, or where the same server says that it is now."""
    for _ in range(REDIRECTS):
        answer = session.get(url, params=params, timeout=TIMEOUT, stream=True, allow_redirects=False)
        if not answer.is_redirect:
            return answer
        answer.close()
        url, params = _next(url, url, answer.headers["Location"]), None
    raise SourceError(f"extract: {_shown(url)} redirects {REDIRECTS} times. Cure: check the endpoint")


def _refused(answer: Any, url: str) -> None:
    status = int(answer.status_code)
    if status < 400:
        return
    text = f"extract: {_shown(url)} answers {status} {answer.reason}"
    if status in (408, 425, 429) or status >= 500:
        raise SourceUnavailableError(f"{text}; it is tried again")
    cures = {
        401: "Check login and password of the connection",
        403: "Give the connection's user the right to read it",
        404: "Check the connection's host and the endpoint",
    }
    raise SourceError(f"{text}. Cure: {cures.get(status, 'check endpoint and params')}")


def _records(file: Path, records: str | None, following: str | None, url: str) -> str | None:
    """Turn an answer into one JSON object a line, and return the link to the next answer in it."""
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise SourceError(
            f"extract: {url} answers with no JSON: {error}. Cure: check format and endpoint"
        ) from error
    found = _at(content, records)
    rows = found if isinstance(found, list) else [found] if isinstance(found, dict) and records else None
    if rows is None or not all(isinstance(row, dict) for row in rows):
        got = ", ".join(content) if isinstance(content, dict) else type(content).__name__
        raise SourceError(
            f"extract: {url} has no list of objects at {records or 'its top'} (there is {got[:200]}). Cure: give "
            "the path to the rows, as records: data.items"
        )
    with file.open("w", encoding="utf-8") as sink:
        sink.writelines(json_text(row) + "\n" for row in rows)
    link = _at(content, following) if following else None
    return str(link) if link else None


def _at(content: Any, path: str | None) -> Any:
    for name in path.split(".") if path else ():
        content = content.get(name) if isinstance(content, dict) else None
    return content


def _params(params: Mapping[str, Any], window: ReadWindow) -> dict[str, Any]:
    ends = {"after": window.after, "until": window.until}
    found = {}
    for name, value in params.items():
        placed = [end[1] for end in _END.finditer(value)] if isinstance(value, str) else []
        if all(ends[end] is not None for end in placed):
            found[name] = _END.sub(lambda end: str(ends[end[1]]), value) if placed else value
    return found


def _next(first: str, url: str, link: str) -> str:
    following = urljoin(url, link)
    home, there = urlsplit(first), urlsplit(following)
    if (home.scheme, home.netloc) != (there.scheme, there.netloc):
        raise SourceError(
            f"extract: {_shown(url)} leads on to another server, {_shown(following)}, which must not see this "
            "connection's login. Cure: put that address into the connection, or into one of its own"
        )
    return following


def _shown(url: str) -> str:
    """The address without its query, which may hold a key, and without a login."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}{parts.path}"
