"""Whether an Airflow connection does not exist, or Airflow cannot be asked at this moment."""

from __future__ import annotations


def is_missing(conn_id: str) -> bool:
    """Whether Airflow itself says that there is no such connection. It blocks.

    ``get_connection`` cannot tell: where the API server does not answer, it looks into the environment instead, and
    says that it found nothing.
    """
    from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
    from airflow.sdk.execution_time import task_runner
    from airflow.sdk.execution_time.comms import ErrorResponse, GetConnection

    supervisor = getattr(task_runner, "SUPERVISOR_COMMS", None)
    if supervisor is None:  # outside a task and a trigger there is nobody to ask
        return True
    answer: object
    try:
        answer = supervisor.send(GetConnection(conn_id=conn_id))
    except AirflowRuntimeError as error:
        answer = error.error
    except Exception:  # noqa: BLE001  whatever it is, it is no answer
        return False
    return isinstance(answer, ErrorResponse) and answer.error == ErrorType.CONNECTION_NOT_FOUND
