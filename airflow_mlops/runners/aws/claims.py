"""One submit among many, where a service does not refuse a name that is taken: a small document in the job's staging."""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from airflow_mlops.exceptions import RunnerError, StoreConflictError
from airflow_mlops.primitives.texts.documents import json_text
from airflow_mlops.runners.protocol import FoundJob

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_mlops.runners.files.staging import Staging


@dataclass(frozen=True)
class Claim:
    """Who submits a job, or did.

    :param token: of this attempt: the service's name of the job ends with it.
    :param at: Unix time of the claim, by the claimer's clock.
    :param labels: of the job.
    :param service_id: what the service calls the job; empty until it has been submitted.
    :param image: what was submitted, by digest where that is known.
    :param etag: version of the document.
    """

    token: str
    at: float
    labels: Mapping[str, str] = field(default_factory=dict)
    service_id: str = ""
    image: str = ""
    etag: str | None = None

    def content(self) -> bytes:
        """The document."""
        said = {key: getattr(self, key) for key in ("token", "at", "labels", "service_id", "image")}
        return json_text(said).encode()


class Claims:
    """
    Claims of jobs, each below the job's staging.

    :param staging: where.
    :param adopt_after: seconds after which a claim without a job is taken for one of a submitter that died.
    """

    def __init__(self, staging: Staging, adopt_after: float = 120.0) -> None:
        self._staging = staging
        self._adopt_after = adopt_after

    def read(self, name: str) -> Claim | None:
        """The claim of a job; ``None`` when nobody has claimed it."""
        content, etag = self._staging.store.read_versioned(self._key(name))
        if content is None:
            return None
        try:
            said = json.loads(content)
            return Claim(
                str(said["token"]),
                float(said["at"]),
                dict(said["labels"]),
                str(said["service_id"]),
                str(said["image"]),
                etag,
            )
        except (ValueError, KeyError, TypeError) as error:
            raise RunnerError(
                f"{self._staging.store.address(self._key(name))} is no claim: {error}. Cure: remove it."
            ) from error

    def obtain(self, name: str, labels: Mapping[str, str], find: Callable[[Claim], str]) -> Claim:
        """Claim a job, or learn what became of an earlier claim.

        :param find: asks the service for the job of a claim; its id, or empty.
        :return: a claim with a service id, or one that is the caller's to submit.
        """
        while True:
            known = self.read(name)
            if known is not None:
                if known.service_id:
                    return known
                if found := find(known):
                    return self.complete(name, known, found)
                if time.time() - known.at <= self._adopt_after:
                    time.sleep(min(2.0, max(0.2, self._adopt_after / 10)))
                    continue
            fresh = Claim(uuid.uuid4().hex[:8], time.time(), dict(labels))
            if mine := self._write(name, fresh, known.etag if known else None):
                return mine

    def is_still(self, name: str, claim: Claim) -> bool:
        """Whether nobody has taken the claim over meanwhile."""
        known = self.read(name)
        return known is not None and known.token == claim.token

    def complete(self, name: str, claim: Claim, service_id: str, image: str = "") -> Claim:
        """Write down the service's id; the claim that is there, when it is another one by now."""
        done = replace(claim, service_id=service_id, image=image or claim.image)
        return self._write(name, done, claim.etag) or self.read(name) or done

    def jobs(self) -> list[FoundJob]:
        """All jobs that were claimed and not removed, whoever did."""
        found = []
        for key in self._staging.store.list("jobs/"):
            name = key.removeprefix("jobs/").removesuffix("/claim.json")
            if key == self._key(name) and (claim := self.read(name)):
                found.append(FoundJob(name, claim.labels, datetime.fromtimestamp(claim.at, UTC)))
        return found

    def give_up(self, name: str, claim: Claim) -> bool:
        """Remove a claim if it is still the claimer's; ``False`` when another one has taken it over."""
        # Renewed first: that is held to the document which is ours, and keeps others away until it is removed.
        mine = self._write(name, replace(claim, at=time.time()), claim.etag)
        if mine is not None:
            self.remove(name)
        return mine is not None

    def remove(self, name: str) -> None:
        """Forget the job."""
        self._staging.store.delete(self._key(name))

    def _write(self, name: str, claim: Claim, etag: str | None) -> Claim | None:
        try:
            written = self._staging.store.compare_and_set(self._key(name), claim.content(), etag)
        except StoreConflictError:
            return None
        return replace(claim, etag=written)

    def _key(self, name: str) -> str:
        return f"jobs/{name}/claim.json"
