"""A Hugging Face hub on this machine, for huggingface_hub's own client: repositories, commits, large files."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

LARGE = (".safetensors", ".png")


@dataclass
class Repository:
    """Its commits, and which of them each branch is at."""

    private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    branches: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.commit("main", {}, "initial commit")

    def commit(self, branch: str, files: dict[str, bytes], message: str) -> str:
        sha = hashlib.sha1(repr((len(self.messages), sorted(files.items()), message)).encode()).hexdigest()
        self.commits[sha] = files
        self.messages.append(message)
        self.branches[branch] = sha
        return sha

    def at(self, revision: str) -> str | None:
        revision = self.branches.get(revision, revision)
        return revision if revision in self.commits else None

    def files(self, revision: str = "main") -> dict[str, bytes]:
        return self.commits[self.at(revision) or ""]


class Hub:
    """What the server knows. `requests` has the method and path of each call, `tokens` what came with it."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.large: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.tokens: set[str] = set()
        self.refuses: dict[str, int] = {}
        """A part of a path, and the status with which such a request is refused."""
        self.address = ""


@contextmanager
def local_hub() -> Iterator[Hub]:
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("OfThisHub", (Handler,), {"hub": hub}))
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.serve()

    def do_HEAD(self) -> None:
        self.serve()

    def do_POST(self) -> None:
        self.serve()

    def do_PUT(self) -> None:
        self.serve()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is printed."""

    def serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(self.path.partition("?")[0])
        self.hub.requests.append(f"{self.command} {path}")
        self.hub.tokens.add(self.headers.get("Authorization", "none"))
        for part, status in self.hub.refuses.items():
            if part in path:
                return self.answer({"error": "refused by the test"}, status)
        for pattern, action in ROUTES.items():
            if found := re.fullmatch(pattern, f"{self.command} {path}"):
                return action(self, body, **found.groupdict())
        return self.answer({"error": f"the test's hub knows no {self.command} {path}"}, 501)

    def answer(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        content = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/octet-stream" if isinstance(value, bytes) else "application/json")
        self.send_header("Content-Length", str(len(content)))
        for name, header in (headers or {}).items():
            self.send_header(name, header)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def repository(self, name: str) -> Repository | None:
        found = self.hub.repositories.get(name)
        if found is None:
            self.answer({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
        return found

    def create(self, body: bytes) -> None:
        asked = json.loads(body)
        name = f"{asked.get('organization') or 'me'}/{asked['name']}"
        private = asked.get("private") or asked.get("visibility") == "private"
        status = 409 if name in self.hub.repositories else 200
        self.hub.repositories.setdefault(name, Repository(private=bool(private)))
        self.answer({"url": f"{self.hub.address}/{name}", "name": name, "id": name}, status)

    def validate(self, body: bytes) -> None:
        content = json.loads(body)["content"]
        good = re.match(r"---\n.*?\n---\n", content, re.DOTALL)
        self.answer({"errors": [] if good else [{"message": "no metadata"}], "warnings": []}, 200 if good else 400)

    def preupload(self, body: bytes, name: str, revision: str) -> None:
        del revision
        if self.repository(name) is not None:
            files = [
                {"path": file["path"], "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular",
                 "shouldIgnore": False, "oid": None}
                for file in json.loads(body)["files"]
            ]  # fmt: skip
            self.answer({"files": files})

    def batch(self, body: bytes, name: str) -> None:
        del name
        objects = [
            {"oid": one["oid"], "size": one["size"],
             "actions": {"upload": {"href": f"{self.hub.address}/large/{one['oid']}", "header": {}}}}
            for one in json.loads(body)["objects"]
        ]  # fmt: skip
        self.answer({"transfer": "basic", "objects": objects})

    def put(self, body: bytes, oid: str) -> None:
        assert hashlib.sha256(body).hexdigest() == oid
        self.hub.large[oid] = body
        self.answer(b"")

    def commit(self, body: bytes, name: str, revision: str) -> None:
        if (repository := self.repository(name)) is None:
            return
        files, message = dict(repository.files(revision)), ""
        for line in map(json.loads, body.decode().splitlines()):
            value = line["value"]
            if line["key"] == "header":
                message = value["summary"]
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.large[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        sha = repository.commit(revision, files, message)
        address = f"{self.hub.address}/{name}/commit/{sha}"
        self.answer({"success": True, "commitOid": sha, "commitUrl": address, "hookOutput": ""})

    def info(self, body: bytes, name: str, revision: str = "main") -> None:
        del body
        if (repository := self.repository(name)) is None:
            return
        if (sha := repository.at(revision)) is None:
            return self.answer({"error": "Revision not found"}, 404, {"X-Error-Code": "RevisionNotFound"})
        names = [{"rfilename": file} for file in repository.commits[sha]]
        self.answer({"id": name, "sha": sha, "private": repository.private, "siblings": names, "tags": []})

    def tree(self, body: bytes, name: str, revision: str) -> None:
        del body
        if (repository := self.repository(name)) is not None:
            entries = []
            for path, content in repository.files(revision).items():
                entry = {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                if path.endswith(LARGE):
                    large = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
                    entry["lfs"] = large
                entries.append(entry)
            self.answer(entries)

    def resolve(self, body: bytes, name: str, revision: str, path: str) -> None:
        del body
        if (repository := self.repository(name)) is not None:
            content = repository.files(revision)[path]
            tag = hashlib.sha256(content).hexdigest()
            self.answer(content, 200, {"X-Repo-Commit": repository.at(revision) or "", "ETag": f'"{tag}"'})


ROUTES = {
    r"POST /api/repos/create": Handler.create,
    r"POST /api/validate-yaml": Handler.validate,
    r"POST /api/models/(?P<name>[^/]+/[^/]+)/preupload/(?P<revision>.+)": Handler.preupload,
    r"POST /(?P<name>[^/]+/[^/]+)\.git/info/lfs/objects/batch": Handler.batch,
    r"PUT /large/(?P<oid>\w+)": Handler.put,
    r"POST /api/models/(?P<name>[^/]+/[^/]+)/commit/(?P<revision>.+)": Handler.commit,
    r"GET /api/models/(?P<name>[^/]+/[^/]+)": Handler.info,
    r"GET /api/models/(?P<name>[^/]+/[^/]+)/revision/(?P<revision>.+)": Handler.info,
    r"GET /api/models/(?P<name>[^/]+/[^/]+)/tree/(?P<revision>[^/]+)": Handler.tree,
    r"(GET|HEAD) /(?P<name>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)": Handler.resolve,
}
