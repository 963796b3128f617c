"""Who notices what an application waits for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import AssetWatcher

from airflow_mlops.triggers.model_code import NewModelCodeTrigger

if TYPE_CHECKING:
    from airflow_mlops.spec import ApplicationSpec


def watchers_of(spec: ApplicationSpec) -> list[AssetWatcher]:
    """Watchers of the application's model code, as ``code.watch`` says."""
    watch = spec.code.watch
    if watch is None:
        return []
    watchers, every = [], watch.every.total_seconds()
    if watch.image and spec.code.image:
        of_aws = ".dkr.ecr" in spec.code.image.partition("/")[0]
        conn_id = watch.connection or ("aws_default" if of_aws else spec.training.docker.connection)
        trigger = NewModelCodeTrigger(
            application=spec.application, image=spec.code.image, conn_id=conn_id, every=every
        )
        watchers.append(AssetWatcher(name=f"{spec.application}.image", trigger=trigger))
    if watch.git:
        trigger = NewModelCodeTrigger(
            application=spec.application,
            git=watch.git,
            ref=watch.ref,
            conn_id=watch.git_connection,
            every=every,
        )
        watchers.append(AssetWatcher(name=f"{spec.application}.git", trigger=trigger))
    return watchers
