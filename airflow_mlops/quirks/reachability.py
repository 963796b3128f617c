"""Whether Airflow's API server answers."""

from __future__ import annotations

import contextlib
import ssl
import urllib.request
from http.client import HTTPException
from urllib.error import HTTPError, URLError

#: Seconds for the answer: a task that is ended has five in all.
PATIENCE = 1.5
#: What a proxy says for a server that is away.
AWAY = (502, 503, 504)


def airflow_answers() -> bool:
    """Whether the API server that workers report to answers at all; what it says does not matter."""
    from airflow.sdk.configuration import conf

    base = str(conf.get("api", "base_url", fallback="") or "").rstrip("/")
    if not base.startswith("http"):
        base = f"http://localhost:8080{base}"
    url = str(conf.get("core", "execution_api_server_url", fallback="") or f"{base}/execution/")
    if not url.startswith("http"):  # a worker that holds the API in its own process
        return True
    context = _context() if url.startswith("https") else None
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/health", timeout=PATIENCE, context=context):  # noqa: S310 - checked above
            return True
    except HTTPError as error:
        return error.code not in AWAY
    except (OSError, ValueError) as error:
        reason = error.reason if isinstance(error, URLError) else error
        # Who refuses a certificate, or has one that is refused here, is there.
        return isinstance(reason, ssl.SSLError) and not isinstance(reason, ssl.SSLEOFError)
    except HTTPException:  # something else than HTTP, and so somebody
        return True


def _context() -> ssl.SSLContext:
    """Authorities and certificate as Airflow's own client takes them; without those that cannot be read."""
    import certifi
    from airflow.sdk.configuration import conf

    def file(option: str) -> str | None:
        return str(conf.get("api", option, fallback="") or "") or None

    context = ssl.create_default_context()
    authorities = [file("ssl_ca_file"), file("ssl_cert")]
    if conf.getboolean("api", "client_use_public_certs", fallback=True):
        authorities.append(certifi.where())
    for authority in filter(None, authorities):
        with contextlib.suppress(OSError):
            context.load_verify_locations(authority)
    certificate, key = file("client_ssl_cert"), file("client_ssl_key")
    if certificate and key:
        with contextlib.suppress(OSError):
            context.load_cert_chain(certificate, key)
    return context
