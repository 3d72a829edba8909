"""Programs that are not Python get tokens from ``tokenadapter helper``: the real programs, called
as docs/howto/programs.md says, and servers on loopback that want a token.

A program that the machine does not have is skipped; "tox -e programs" installs those that PyPI has.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shlex
import shutil
import ssl
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import requests
import trustme
import yaml
from profiles import write
from unit.cli.test_tokens import aged

from tokenadapter.testing import TokenServer

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the scripts are for a shell of Unix")

PAGE = (Path(__file__).parents[2] / "docs/howto/programs.md").read_text(encoding="utf-8")
COMMAND = f"{shlex.quote(sys.executable)} -m tokenadapter"


def found(program: str) -> str | None:
    """The path of a program, from this environment or from the machine."""
    ours = str(Path(sys.executable).parent)
    return shutil.which(program, path=os.pathsep.join([ours, os.environ.get("PATH", "")]))


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(found(program) is None, reason=f"there is no {program}")


class Guarded(SimpleHTTPRequestHandler):
    """Serves files to those who bring a token that the token server has issued."""

    def __init__(self, *args: Any, tokens: TokenServer, challenge: str, **more: Any) -> None:
        self.tokens, self.challenge = tokens, challenge
        super().__init__(*args, **more)

    def do_GET(self) -> None:
        given = self.headers.get("Authorization", "")
        self.server.given.append(given)  # type: ignore[attr-defined]
        scheme, _, value = given.partition(" ")
        if scheme == "Basic":
            value = base64.b64decode(value).decode().partition(":")[2]
        headers = {"Authorization": f"Bearer {value}"}
        if scheme == self.challenge and requests.get(self.tokens.api_url, headers=headers).ok:
            super().do_GET()
            return
        self.send_response(401)
        self.send_header("WWW-Authenticate", f'{self.challenge} realm="test"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    def guess_type(self, path: Any) -> str:
        return MANIFEST if "manifests" in str(path) else super().guess_type(path)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[TokenServer]:
    with TokenServer() as server:
        yield server


@pytest.fixture
def serve(server: TokenServer) -> Iterator[Callable[..., Any]]:
    """Starts a server of files."""
    started = []

    def start(
        directory: Path, challenge: str = "Basic", context: ssl.SSLContext | None = None
    ) -> Any:
        handler = partial(Guarded, tokens=server, challenge=challenge, directory=str(directory))
        made: Any = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        if context is not None:
            made.socket = context.wrap_socket(made.socket, server_side=True)
        made.given = []
        made.url = f"http{'' if context is None else 's'}://127.0.0.1:{made.server_port}"
        thread = threading.Thread(target=made.serve_forever, args=[0.01])
        thread.start()
        started.append((made, thread))
        return made

    yield start
    for made, thread in started:
        made.shutdown()
        made.server_close()
        thread.join()


@pytest.fixture
def context(tmp_path: Path) -> ssl.SSLContext:
    """The server side of TLS; ``ca.pem`` vouches for it."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.fixture
def configured(tmp_path: Path, server: TokenServer) -> Callable[[str], dict[str, str]]:
    """Writes the profile ``code`` with a prefix, and returns the environment of its programs."""

    def configure(prefix: str, more: str = "") -> dict[str, str]:
        config = write(
            tmp_path,
            f"""
[code]
prefix = "{prefix}"
store = "file:{tmp_path}/state/token.json"
{more}
[code.source]
type = "client_credentials"
token_url = "{server.token_url}"
client_id = "client"
client_secret = "secret"
""",
        )
        home = tmp_path / "home"
        home.mkdir()
        return {
            "PATH": f"{home}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(home),
            "TOKENADAPTER_CONFIG": str(config),
            "PIP_CONFIG_FILE": os.devnull,
            "UV_NO_CONFIG": "1",
        }

    return configure


def run(*command: str | Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)


def example(kind: str, word: str) -> str:
    """The block of the page that contains *word*, with ``code`` for the name of the profile."""
    blocks = re.findall(rf"^```{kind}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    (found,) = [block for block in blocks if re.search(rf"\b{word}\b", block)]
    return re.sub(r"(helper,? [a-z]+,?) [a-z]+", r"\1 code", found)


def script(directory: str, name: str, helper: str) -> None:
    """Write the script of the page by which a program finds *helper*."""
    path = Path(directory) / name
    path.write_text(example("sh", helper).replace("exec tokenadapter", f"exec {COMMAND}"))
    path.chmod(0o755)


# --- git ---------------------------------------------------------------------------------


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository that any web server can serve."""
    place = tmp_path / "served" / "team" / "code.git"
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "GIT_CONFIG_NOSYSTEM": "1"}
    author = ["-c", "user.name=Ada", "-c", "user.email=ada@example.com"]
    for words in (
        ["init", "-q", "--bare", place],
        ["init", "-q", tmp_path / "work"],
        ["-C", tmp_path / "work", *author, "commit", "-q", "--allow-empty", "-m", "First"],
        ["-C", tmp_path / "work", "push", "-q", place, "HEAD"],
        ["-C", place, "update-server-info"],
    ):
        done = run("git", *words, env=env)
        assert done.returncode == 0, done.stderr
    return tmp_path / "served"


def git_environment(env: dict[str, str], url: str) -> dict[str, str]:
    settings = Path(env["HOME"]) / "gitconfig"
    text = example("ini", "git").replace("!tokenadapter", f"!{COMMAND}")
    settings.write_text(text.replace("https://git.example.com", url))
    return {
        **env,
        "GIT_CONFIG_GLOBAL": str(settings),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
    }


@needs("git")
def test_git_reads_a_repository_and_recovers_from_a_revoked_token(
    server: TokenServer,
    serve: Callable[..., Any],
    repository: Path,
    configured: Callable[..., dict[str, str]],
    tmp_path: Path,
) -> None:
    files = serve(repository)
    env = git_environment(configured(files.url), files.url)
    url = f"{files.url}/team/code.git"
    done = run("git", "clone", "-q", url, tmp_path / "clone", env=env)
    assert (done.returncode, done.stderr) == (0, "")
    assert server.stats.renewals == 1
    server.expire_now()
    aged(tmp_path, left=3000, lifetime=3600)
    refused = run("git", "ls-remote", url, env=env)
    assert refused.returncode != 0
    assert "Authentication failed" in refused.stderr
    assert server.stats.renewals == 2
    again = run("git", "ls-remote", url, env=env)
    assert (again.returncode, again.stderr) == (0, "")
    assert "refs/heads/" in again.stdout
    assert server.stats.renewals == 2


@needs("git")
def test_git_gets_no_token_for_another_server(
    serve: Callable[..., Any], repository: Path, configured: Callable[..., dict[str, str]]
) -> None:
    files, other = serve(repository), serve(repository)
    env = git_environment(configured(files.url), other.url)
    done = run("git", "ls-remote", f"{other.url}/team/code.git", env=env)
    assert done.returncode != 0
    assert set(other.given) == {""}


# --- kubectl -----------------------------------------------------------------------------


@needs("kubectl")
def test_kubectl_calls_its_cluster(
    server: TokenServer,
    serve: Callable[..., Any],
    configured: Callable[..., dict[str, str]],
    context: ssl.SSLContext,
    tmp_path: Path,
) -> None:
    served = tmp_path / "served"
    served.mkdir()
    (served / "version").write_text('{"major": "1"}')
    cluster = serve(served, "Bearer", context)
    env = configured(cluster.url)
    kubeconfig = tmp_path / "kubeconfig"
    settings = yaml.safe_load(example("yaml", "kubectl"))
    command = settings["users"][0]["user"]["exec"]
    command["args"] = ["-m", command["command"], *command["args"]]
    command["command"] = sys.executable
    names = {"name": "test", "context": {"cluster": "test", "user": "ada"}}
    authority_file = {"certificate-authority": str(tmp_path / "ca.pem")}
    settings |= {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "contexts": [names],
        "clusters": [{"name": "test", "cluster": {"server": cluster.url, **authority_file}}],
    }
    kubeconfig.write_text(yaml.safe_dump(settings))
    words = ["kubectl", "--kubeconfig", kubeconfig, "get", "--raw", "/version"]
    done = run(*words, env=env)
    assert (done.returncode, done.stdout) == (0, '{"major": "1"}'), done.stderr
    assert server.stats.renewals == 1
    kubeconfig.write_text(kubeconfig.read_text().replace(cluster.url, f"{cluster.url}/other"))
    config = Path(env["TOKENADAPTER_CONFIG"])
    config.write_text(config.read_text().replace(cluster.url, f"{cluster.url}/this"))
    before = len(cluster.given)
    done = run(*words, env=env)
    assert done.returncode != 0
    assert f"The URL is outside {cluster.url}/this" in done.stderr
    assert not any(cluster.given[before:])


# --- docker ------------------------------------------------------------------------------

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


@needs("docker")
def test_docker_reads_a_manifest(
    server: TokenServer,
    serve: Callable[..., Any],
    configured: Callable[..., dict[str, str]],
    context: ssl.SSLContext,
    tmp_path: Path,
) -> None:
    """Without a daemon: docker calls the registry itself."""
    image = tmp_path / "served" / "v2" / "made-up"
    digest = f"sha256:{hashlib.sha256(b'{}').hexdigest()}"
    for name, content in (
        (f"blobs/{digest}", "{}"),
        (
            "manifests/1.0",
            json.dumps(
                {
                    "schemaVersion": 2,
                    "mediaType": MANIFEST,
                    "config": {
                        "mediaType": "application/vnd.docker.container.image.v1+json",
                        "size": 2,
                        "digest": digest,
                    },
                    "layers": [],
                }
            ),
        ),
    ):
        (image / name).parent.mkdir(parents=True)
        (image / name).write_text(content)
    registry = serve(tmp_path / "served", context=context)
    env = configured(registry.url)
    script(env["HOME"], "docker-credential-tokenadapter", "docker")
    host = registry.url.partition("://")[2]
    settings = Path(env["HOME"]) / ".docker" / "config.json"
    settings.parent.mkdir()
    settings.write_text(example("json", "credHelpers").replace("registry.example.com", host))
    words = ["manifest", "inspect", "--insecure", f"{host}/made-up:1.0"]
    done = run("docker", *words, env=env)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["config"]["digest"] == digest
    assert server.stats.renewals == 1


# --- pip and uv --------------------------------------------------------------------------


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """A package index with one wheel."""
    place = tmp_path / "index" / "simple" / "made-up"
    place.mkdir(parents=True)
    name = "made_up-1.0"
    info = f"{name}.dist-info"
    with zipfile.ZipFile(place / f"{name}-py3-none-any.whl", "w") as wheel:
        wheel.writestr("made_up.py", "")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: made-up\nVersion: 1.0\n")
        wheel.writestr(
            f"{info}/WHEEL",
            "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        wheel.writestr(
            f"{info}/RECORD", f"made_up.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n"
        )
    link = f'<a href="{name}-py3-none-any.whl">{name}-py3-none-any.whl</a>'
    (place / "index.html").write_text(f"<html><body>{link}</body></html>")
    return tmp_path / "index"


PIP = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-input"]
PIP += ["--no-cache-dir", "--keyring-provider", "subprocess"]
UV = ["uv", "pip", "install", "-q", "--no-cache", "--python", sys.executable]
UV += ["--keyring-provider", "subprocess"]


def needs_pip(*least: int) -> pytest.MarkDecorator:
    version = metadata.version("pip") if find_spec("pip") else "0"
    lacks = [int(number) for number in version.split(".")[:2]] < [*least]
    return pytest.mark.skipif(lacks, reason=f"there is no pip {least[0]}")


@pytest.mark.parametrize(
    ("installer", "user"),
    [
        pytest.param(PIP, "ada@", id="pip", marks=needs_pip(23)),
        pytest.param(PIP, "", id="pip without a user", marks=needs_pip(26, 2)),
        pytest.param(UV, "ada@", id="uv", marks=needs("uv")),
    ],
)
def test_pip_and_uv_install_from_an_index(
    installer: list[str],
    user: str,
    server: TokenServer,
    serve: Callable[..., Any],
    index: Path,
    configured: Callable[..., dict[str, str]],
    tmp_path: Path,
) -> None:
    files = serve(index)
    env = configured(files.url)
    script(env["HOME"], "keyring", "keyring")
    url = f"{files.url}/simple/".replace("://", f"://{user}")
    program, *words = installer
    words += ["--target", str(tmp_path / "target"), "--index-url", url, "made-up"]
    done = run(found(program) or program, *words, env=env)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "target" / "made_up.py").exists()
    assert server.stats.renewals == 1
    users = {base64.b64decode(each[6:]).partition(b":")[0] for each in files.given if each}
    assert users == {user.rstrip("@").encode() or b"oauth2"}


# --- google ------------------------------------------------------------------------------


def test_googles_library_gets_the_token_for_its_provider(
    server: TokenServer, configured: Callable[..., dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    pluggable = pytest.importorskip("google.auth.pluggable")
    provider = json.loads(example("json", "google"))["audience"]
    env = configured(f"https:{provider}")
    for name, value in {**env, "GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES": "1"}.items():
        monkeypatch.setenv(name, value)

    text = example("json", "google").replace("/opt/billing/bin/tokenadapter", COMMAND)

    def credentials(audience: str) -> Any:
        return pluggable.Credentials.from_info({**json.loads(text), "audience": audience})

    token = credentials(provider).retrieve_subject_token(None)
    headers = {"Authorization": f"Bearer {token}"}
    assert requests.get(server.api_url, headers=headers, timeout=30).ok
    # A warning beside the answer would make it unreadable.
    aged(Path(env["TOKENADAPTER_CONFIG"]).parent, left=50, lifetime=3600)
    server.fail_next(503)
    assert credentials(provider).retrieve_subject_token(None) == token
    exceptions = pytest.importorskip("google.auth.exceptions")
    with pytest.raises(exceptions.RefreshError, match="The URL is outside"):
        credentials("//iam.googleapis.com/projects/2").retrieve_subject_token(None)


# --- a file ------------------------------------------------------------------------------


def test_the_service_writes_the_file_before_it_starts_and_ends_when_it_is_stopped(
    server: TokenServer, configured: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    env = configured(server.api_url)
    unit = example("ini", "ExecStartPre").replace("/opt/warehouse/bin/tokenadapter", COMMAND)
    unit = unit.replace("file warehouse", "file code").replace("/run/warehouse", str(tmp_path))
    lines = dict(re.findall(r"^(Exec\w+)=(.*)$", unit, re.MULTILINE))
    done = run(*shlex.split(lines["ExecStartPre"]), env=env)
    assert (done.returncode, done.stderr) == (0, "")
    file = tmp_path / "token"
    first = file.stat()
    service = subprocess.Popen(
        shlex.split(lines["ExecStart"]), env=env, stderr=subprocess.PIPE, text=True
    )
    try:
        while file.stat().st_ino == first.st_ino:  # it has not written its first file yet
            assert service.poll() is None
            time.sleep(0.01)
    finally:
        service.terminate()
        _, err = service.communicate(timeout=30)
    assert (service.returncode, err) == (0, "")
    assert server.stats.renewals == 1
