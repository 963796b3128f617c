"""New model code on a real registry and in a real repository: what is noticed, once, and who is not asked too often."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import re
import subprocess
import threading
import time
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from airflow_mlops.cli.demo.servers import Server, free_port
from airflow_mlops.contract.tools.announce import AnnouncementError, announce
from airflow_mlops.exceptions import ImageNotFoundError, ModelCodeUnavailableError
from airflow_mlops.hooks.git.repository import GitHook
from airflow_mlops.hooks.registry import ImageName, RegistryHook
from airflow_mlops.triggers.model_code import NewModelCodeTrigger
from tests.fixtures.deadlines import DEADLINE
from tests.fixtures.registry import USER
from tests.fixtures.triggerer import Memory, triggerer

pytestmark = pytest.mark.docker


@pytest.fixture
def login(registry, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_REGISTRY", registry.connection())
    monkeypatch.setenv("AIRFLOW_CONN_WRONG", registry.connection("wrong"))


@pytest.fixture
def pushed(registry, docker_engine, tiny_image, request):
    """Push the tiny image, or another one, under the test's own name."""
    name = "watched-" + re.sub(r"[^a-z0-9]+", "-", request.node.name.lower())[:50].strip("-")
    made = []

    def push(variant: int = 0, tag: str = "1") -> str:
        source = tiny_image
        if variant:
            source = f"airflow-mlops-test-{name}:{variant}"
            container = docker_engine("create", tiny_image)
            docker_engine("commit", "--change", f"LABEL variant={variant}", container, source)
            docker_engine("rm", container)
            made.append(source)
        digest = registry.push(docker_engine, source, f"{name}:{tag}")
        made.append(f"{registry.address}/{name}:{tag}")
        return digest.partition("@")[2]

    push.image = f"{registry.address}/{name}"
    yield push
    for image in made:
        docker_engine("rmi", "--force", image)


def ask(image: str, conn_id: str | None) -> str:
    async def asking() -> str:
        name = ImageName.parse(image)
        async with RegistryHook(name.registry, conn_id).session() as session:
            return await session.digest(name)

    return asyncio.run(asking())


class TestRegistry:
    def test_the_digest_behind_a_tag(self, pushed, login):
        digest = pushed()
        assert ask(f"{pushed.image}:1", "registry") == digest

    @pytest.mark.parametrize("conn_id", ["wrong", None, "not_there"])
    def test_a_wrong_login_says_what_to_do(self, pushed, login, conn_id):
        pushed()
        with pytest.raises(
            ModelCodeUnavailableError, match=r"refuses to show .* \(HTTP 401.*Cure: a connection"
        ):
            ask(f"{pushed.image}:1", conn_id)

    def test_a_corrected_connection_counts_at_the_next_question(self, registry, monkeypatch):
        name = ImageName.parse(f"{registry.address}/nothing:1")
        monkeypatch.setenv("AIRFLOW_CONN_CHANGING", registry.connection("wrong"))

        async def asking() -> None:
            async with RegistryHook(name.registry, "changing").session() as session:
                with pytest.raises(ModelCodeUnavailableError, match="HTTP 401"):
                    await session.digest(name)
                monkeypatch.setenv("AIRFLOW_CONN_CHANGING", registry.connection())
                with pytest.raises(ImageNotFoundError):  # logged in, and nothing is there
                    await session.digest(name)

        asyncio.run(asking())

    def test_an_absent_tag_says_so(self, pushed, login):
        pushed()
        with pytest.raises(ImageNotFoundError, match=r"has no image .*:2"):
            ask(f"{pushed.image}:2", "registry")

    def test_nobody_there(self, login):
        with pytest.raises(ModelCodeUnavailableError, match="does not answer"):
            ask(f"127.0.0.1:{free_port()}/tiny:1", "registry")

    def test_a_login_goes_only_to_its_registry(self, login):
        seen = []
        with _listening(_Curious(seen)) as port, pytest.raises(ModelCodeUnavailableError):
            ask(f"127.0.0.1:{port}/tiny:1", "registry")
        assert seen
        assert not any("Authorization" in headers for headers in seen)

    def test_a_registry_with_tokens(self, tmp_path, monkeypatch, docker_engine, tiny_image):
        with _token_registry(tmp_path) as (address, asked):
            connection = {"conn_type": "docker", "host": address, "login": USER, "password": "token-password"}
            monkeypatch.setenv("AIRFLOW_CONN_TOKENS", json.dumps(connection))
            monkeypatch.setenv("AIRFLOW_CONN_FALSE", json.dumps({**connection, "password": "no"}))
            with pytest.raises(ImageNotFoundError):  # logged in, and nothing is there yet
                ask(f"{address}/tiny:1", "tokens")
            with pytest.raises(ModelCodeUnavailableError, match="HTTP 401"):
                ask(f"{address}/tiny:1", "false")
        assert asked[0] == {"service": ["tests"], "scope": ["repository:tiny:pull"]}

    def test_a_password_is_not_sent_to_just_anywhere(self, login, registry, monkeypatch):
        monkeypatch.setattr("airflow_mlops.hooks.registry._LOCAL", SimpleNamespace(match=lambda _: None))
        hook = RegistryHook("registry.example.com", "registry")

        async def asking() -> None:
            async with hook.session() as session:
                await session._token("tiny", {"realm": "http://elsewhere.example.com/token"}, "Basic x")

        with pytest.raises(ModelCodeUnavailableError, match="no place for a password"):
            asyncio.run(asking())


def test_ecr_is_logged_in_to_by_aws(monkeypatch):
    """The request is asserted: there is no ECR to ask here, moto stands for AWS's control plane."""
    from moto import mock_aws

    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", "aws://key:secret@/?region_name=eu-west-1")
    with mock_aws():
        hook = RegistryHook("123456789012.dkr.ecr.eu-west-1.amazonaws.com")
        (user, password), until = asyncio.run(hook.login())
    assert (user, password) == ("AWS", "123456789012-auth-token")
    assert until == datetime(2015, 1, 1, tzinfo=UTC).timestamp()  # what moto says of every token
    assert hook.url == "https://123456789012.dkr.ecr.eu-west-1.amazonaws.com/v2"


class TestRepository:
    @pytest.fixture
    def repository(self, tmp_path):
        def git(*words: str) -> str:
            done = subprocess.run(
                ["git", "-C", str(tmp_path), "-c", "user.name=t", "-c", "user.email=t@example.com", *words],
                check=True,
                capture_output=True,
                text=True,
            )
            return done.stdout.strip()

        git("init", "--quiet", "--initial-branch", "main")
        git("commit", "--quiet", "--allow-empty", "--message", "first")
        git.url = str(tmp_path)
        return git

    def test_branches_and_tags(self, repository):
        hook, first = GitHook(repository.url), repository("rev-parse", "HEAD")
        repository("tag", "v1")
        repository("commit", "--quiet", "--allow-empty", "--message", "second")
        assert asyncio.run(hook.digest("main")) == repository("rev-parse", "HEAD") != first
        assert asyncio.run(hook.digest("v1")) == first
        with pytest.raises(ModelCodeUnavailableError, match=r"no branch or tag 'gone'; it has: main, v1"):
            asyncio.run(hook.digest("gone"))

    def test_nothing_there(self, tmp_path):
        with pytest.raises(ModelCodeUnavailableError, match="does not answer"):
            asyncio.run(GitHook(str(tmp_path / "nothing")).digest("main"))


class TestTrigger:
    def test_one_poll_for_all_applications_and_each_hears_its_own(self, pushed, login, registry):
        first, other = pushed(1), pushed(0, tag="2")
        memories = [Memory(), Memory(), Memory()]

        async def scenario() -> tuple[list, str]:
            async with triggerer() as running:
                for number, tag in enumerate(("1", "1", "2")):
                    trigger = NewModelCodeTrigger(
                        application=f"app{number}",
                        image=f"{pushed.image}:{tag}",
                        conn_id="registry",
                        every=0.2,
                    )
                    await running.start(trigger, memories[number])
                await running.until(lambda: all("seen_image" in memory.values for memory in memories))
                assert running.events == []
                assert len(running.manager._groups) == 1
                second = await asyncio.to_thread(pushed, 2)
                await running.until(lambda: len(running.events) == 2)
                return running.events, second

        events, second = asyncio.run(scenario())
        assert {application for application, _ in events} == {"app0", "app1"}
        (payload,) = {json.dumps(payload) for _, payload in events}
        said = json.loads(payload)
        assert (said["reason"], said["before"], said["digest"]) == ("new_code", first, second)
        assert memories[2].values["seen_image"] == {"digest": other, "changes": 0}
        assert memories[0].values["health_image"]["ok"] is True

    def test_what_came_while_nobody_looked_is_noticed(self, pushed, login):
        digest = pushed(3)
        memory = Memory(seen_image="sha256:old")

        async def scenario() -> list:
            async with triggerer() as running:
                trigger = NewModelCodeTrigger(
                    application="late", image=f"{pushed.image}:1", conn_id="registry", every=0.2
                )
                await running.start(trigger, memory)
                await running.until(lambda: running.events)
                return running.events

        ((_, payload),) = asyncio.run(scenario())
        assert (payload["before"], payload["digest"]) == ("sha256:old", digest)

    def test_who_comes_later_is_told_too(self, pushed, login):
        digest = pushed(5)
        memories = [Memory(seen_image="sha256:old"), Memory(seen_image="sha256:old")]
        arguments = {"image": f"{pushed.image}:1", "conn_id": "registry", "every": 0.2}

        async def scenario() -> list:
            async with triggerer() as running:
                await running.start(NewModelCodeTrigger(application="first", **arguments), memories[0])
                await running.until(lambda: running.events)
                await running.start(NewModelCodeTrigger(application="second", **arguments), memories[1])
                await running.until(lambda: len(running.events) == 2)
                seen = {"digest": digest, "changes": 1}
                await running.until(lambda: all(memory.values["seen_image"] == seen for memory in memories))
                return running.events

        assert [application for application, _ in asyncio.run(scenario())] == ["first", "second"]

    def test_an_image_and_a_repository_do_not_forget_each_other(self, pushed, login, tmp_path):
        def git(*words: str) -> None:
            subprocess.run(
                ["git", "-C", str(tmp_path), "-c", "user.name=t", "-c", "user.email=t@example.com", *words],
                check=True,
            )

        git("init", "--quiet", "--initial-branch", "main")
        git("commit", "--quiet", "--allow-empty", "--message", "first")
        pushed(6)
        memory = Memory()

        async def scenario() -> list:
            async with triggerer() as running:
                image = {"image": f"{pushed.image}:1", "conn_id": "registry"}
                for watched in (image, {"git": str(tmp_path)}):
                    await running.start(NewModelCodeTrigger(application="both", every=0.2, **watched), memory)
                await running.until(lambda: {"seen_image", "seen_git"} <= set(memory.values))
                await asyncio.to_thread(git, "commit", "--quiet", "--allow-empty", "--message", "second")
                await running.until(lambda: running.events)
                return running.events

        ((_, payload),) = asyncio.run(scenario())
        assert payload["code"] == f"{tmp_path}@main"

    def test_an_event_that_was_not_committed_comes_again_as_the_same(self, pushed, login):
        pushed(4)
        memory = Memory(seen_image="sha256:old")
        arguments = {
            "application": "again",
            "image": f"{pushed.image}:1",
            "conn_id": "registry",
            "every": 0.2,
        }

        async def scenario(*, commits: bool) -> list:
            async with triggerer(commits=commits) as running:
                await running.start(NewModelCodeTrigger(**arguments), memory)
                await running.until(lambda: running.events)
                if commits:
                    await running.until(lambda: memory.values["seen_image"] != "sha256:old")
                return running.events

        lost = asyncio.run(scenario(commits=False))
        assert memory.values["seen_image"] == "sha256:old"
        assert asyncio.run(scenario(commits=True)) == lost

    def test_a_registry_that_is_down_is_asked_less_and_less_and_its_state_is_to_be_seen(
        self, login, monkeypatch
    ):
        memory = Memory()
        counted = []
        with _listening(_Broken(counted)) as port:

            async def scenario() -> None:
                async with triggerer() as running:
                    trigger = NewModelCodeTrigger(
                        application="down", image=f"127.0.0.1:{port}/tiny:1", conn_id=None, every=0.1
                    )
                    await running.start(trigger, memory)
                    await running.until(lambda: memory.values.get("health_image", {}).get("failures", 0) >= 4)
                    assert not any(task.done() for task in running.tasks)

            asyncio.run(scenario())
        pauses = [later - before for before, later in itertools.pairwise(counted)]
        assert pauses[-1] > 2 * pauses[0]
        assert memory.values["health_image"]["ok"] is False
        assert "HTTP 503" in memory.values["health_image"]["error"]

    def test_a_new_commit(self, tmp_path):
        def git(*words: str) -> None:
            subprocess.run(
                ["git", "-C", str(tmp_path), "-c", "user.name=t", "-c", "user.email=t@example.com", *words],
                check=True,
            )

        git("init", "--quiet", "--initial-branch", "main")
        git("commit", "--quiet", "--allow-empty", "--message", "first")
        memory = Memory()

        async def scenario() -> list:
            async with triggerer() as running:
                trigger = NewModelCodeTrigger(application="git", git=str(tmp_path), ref="main", every=0.2)
                await running.start(trigger, memory)
                await running.until(lambda: "seen_git" in memory.values)
                await asyncio.to_thread(git, "commit", "--quiet", "--allow-empty", "--message", "second")
                await running.until(lambda: running.events)
                return running.events

        ((_, payload),) = asyncio.run(scenario())
        assert payload["code"] == f"{tmp_path}@main"
        assert payload["digest"] != payload["before"]


class TestAirflow:
    """A real triggerer, scheduler and API server."""

    @pytest.fixture
    def watched(self, airflow, registry, pushed, tmp_path):
        """An application whose image is watched; its training fails early, for it has no examples."""
        airflow.client.call(
            "POST", "/connections", {"connection_id": "watched", **json.loads(registry.connection())}
        )
        text = {
            "application": "watched",
            "code": {"image": f"{pushed.image}:1", "watch": {"every": "1s", "connection": "watched"}},
            "provisioning": {
                "features": None,
                "examples": {
                    "parquet": f"{tmp_path}/*.parquet",
                    "keys": ["id"],
                    "timestamp": "at",
                    "targets": ["y"],
                },
            },
            "training": {"run_on": "docker", "retries": 0},
        }
        pushed(1)
        airflow.add("watched", json.dumps(text))
        airflow.until("its DAG", lambda: "watched__training" in airflow.dag_ids())
        airflow.client.call("PATCH", "/dags/watched__training", {"is_paused": False})
        return airflow

    def test_a_pushed_image_and_a_word_of_ci_each_start_a_training_for_new_code(
        self, watched, pushed, monkeypatch
    ):
        asset = watched.until("its asset", lambda: watched.asset("watched.code"))

        def reasons(run_id: str) -> list[dict]:
            return watched.until(
                "its reasons", lambda: watched.client.xcom("watched__training", run_id, "collect_reasons")
            )

        for number in range(2, 32):  # the first look only remembers, and nobody sees when it was
            pushed(number)
            with contextlib.suppress(AssertionError):
                watched.until("an event", lambda: watched.events(asset), 20)
                break
        assert watched.events(asset)
        first = watched.until("a run", lambda: watched.triggered_by_asset("watched__training"))
        (reason,) = reasons(first)[:1]
        assert (reason["kind"], reason["evidence"]["code"]) == ("new_code", f"{pushed.image}:1")
        assert reason["evidence"]["digest"].startswith("sha256:")
        watched.finish("watched__training", first)

        settings = watched.settings
        login = {"AIRFLOW_USER": settings.user, "AIRFLOW_PASSWORD": settings.password}
        number = announce(settings.url, "watched", {"commit": "abc123"}, login)
        assert number in {event["id"] for event in watched.events(asset)}
        second = watched.until(
            "a second run",
            lambda: next(
                (
                    run["dag_run_id"]
                    for run in watched.client.runs("watched__training")
                    if any(
                        reason["evidence"].get("commit") == "abc123"
                        for reason in watched.client.xcom(
                            "watched__training", run["dag_run_id"], "collect_reasons"
                        )
                        or ()
                    )
                ),
                None,
            ),
        )
        assert {reason["kind"] for reason in reasons(second)} == {"new_code"}
        with pytest.raises(AnnouncementError, match=r"knows no asset nowhere\.code"):
            announce(settings.url, "nowhere", {}, login)
        with pytest.raises(AnnouncementError, match="HTTP 401"):
            announce(settings.url, "watched", {}, {**login, "AIRFLOW_PASSWORD": "wrong"})


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def answer(self, status: int, content: object = None, **headers: str) -> None:
        body = json.dumps(content).encode() if content is not None else b""
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)


def _Curious(seen: list) -> type[_Handler]:  # noqa: N802
    class Curious(_Handler):
        def do_HEAD(self) -> None:
            seen.append(dict(self.headers))
            self.answer(401, WWW_Authenticate='Basic realm="tests"')

    return Curious


def _Broken(counted: list) -> type[_Handler]:  # noqa: N802
    class Broken(_Handler):
        def do_HEAD(self) -> None:
            counted.append(time.monotonic())
            self.answer(503)

    return Broken


class _listening:  # noqa: N801
    """A server of a handler, for a while."""

    def __init__(self, handler: type[_Handler]) -> None:
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)

    def __enter__(self) -> int:
        threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        ).start()
        return self.server.server_port

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


class _token_registry:  # noqa: N801
    """A real registry that asks for tokens, and the one who gives them."""

    def __init__(self, folder) -> None:
        self.folder = folder
        self.asked: list[dict] = []
        key = rsa.generate_private_key(65537, 2048)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tests")])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(1)
            .not_valid_before(now - timedelta(minutes=5))
            .not_valid_after(now + timedelta(days=1))
            .sign(key, hashes.SHA256())
        )
        (folder / "token.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        chain = base64.b64encode(certificate.public_bytes(serialization.Encoding.DER)).decode()
        asked = self.asked

        class Tokens(_Handler):
            def do_GET(self) -> None:
                asked.append(parse_qs(urlsplit(self.path).query))
                given = base64.b64encode(f"{USER}:token-password".encode()).decode()
                if self.headers.get("Authorization") != f"Basic {given}":
                    self.answer(401)
                    return
                _, repository, actions = asked[-1]["scope"][0].split(":")
                access = [{"type": "repository", "name": repository, "actions": actions.split(",")}]
                claims = {"iss": "tests", "aud": "tests", "sub": USER, "jti": "1", "access": access}
                claims |= {"iat": now, "nbf": now - timedelta(minutes=1), "exp": now + timedelta(minutes=10)}
                token = jwt.encode(claims, key, "RS256", headers={"x5c": [chain]})
                self.answer(200, {"token": token, "expires_in": 600})

        self.tokens = _listening(Tokens)

    def __enter__(self) -> tuple[str, list[dict]]:
        port = self.tokens.__enter__()
        address = f"127.0.0.1:{free_port()}"
        auth = {
            "realm": f"http://127.0.0.1:{port}/token",
            "service": "tests",
            "issuer": "tests",
            "rootcertbundle": str(self.folder / "token.pem"),
        }
        configuration = {
            "version": 0.1,
            "log": {"level": "warn"},
            "storage": {"filesystem": {"rootdirectory": str(self.folder / "content")}},
            "http": {"addr": address},
            "auth": {"token": auth},
        }
        path = self.folder / "config.yml"
        path.write_text(json.dumps(configuration))

        def answers() -> bool:
            import urllib.error
            import urllib.request

            try:
                urllib.request.urlopen(f"http://{address}/v2/", timeout=5).close()
            except urllib.error.HTTPError as error:
                return error.code == 401
            except OSError:
                return False
            return False

        self.server = Server(
            "docker-registry", ["docker-registry", "serve", str(path)], {}, self.folder / "log", answers
        )
        self.server.start()
        self.server.wait(DEADLINE)
        return address, self.asked

    def __exit__(self, *_: object) -> None:
        self.server.stop()
        self.tokens.__exit__()
