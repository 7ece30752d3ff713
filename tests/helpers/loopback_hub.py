"""A Hub on loopback: as much of its HTTP interface as huggingface_hub needs to make a repository and to push to it.

It keeps every byte that it is sent as a file's content, committed or not.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

USER = "someone"
IN_LFS = (".safetensors", ".bin", ".pt", ".pth", ".npz", ".png")


class LoopbackHub:
    """A server with the repositories that were made on it; ``with LoopbackHub() as hub`` runs it.

    Attributes:
        repos: id -> path -> content, of the main branch.
        commits: (id, message) of each, in order.
        received: (path or LFS object id, content) of each file that was sent.
        breaks: whether the connection breaks at the next commit, and at each after it.
    """

    def __init__(self):
        self.repos: dict[str, dict[str, bytes]] = {}
        self.commits: list[tuple[str, str]] = []
        self.received: list[tuple[str, bytes]] = []
        self.breaks = False
        self._objects: dict[str, bytes] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *exception):
        self._server.shutdown()
        self._server.server_close()

    def answer(self, method, path, body):
        """What the Hub says: (status, JSON), or None to break the connection."""
        if path == "/api/whoami-v2":
            return 200, {"name": USER, "type": "user", "orgs": []}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if path == "/api/repos/create":
            repo = f"{json.loads(body).get('organization') or USER}/{json.loads(body)['name']}"
            known = repo in self.repos
            self.repos.setdefault(repo, {".gitattributes": b"*.safetensors filter=lfs\n"})
            return (409 if known else 200), {"url": f"{self.url}/{repo}", "id": repo}
        if found := re.fullmatch(r"/lfs/(\w+)", path):
            self.received.append((found[1], body))
            if hashlib.sha256(body).hexdigest() != found[1]:
                return 400, {"error": "the content is not what was announced"}
            self._objects[found[1]] = body
            return 200, {}
        if found := re.fullmatch(r"/(.+)\.git/info/lfs/objects/batch", path):
            return 200, {"transfer": "basic", "objects": [self._upload(o) for o in json.loads(body)["objects"]]}
        found = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(preupload|commit|tree|revision)/[^/]+", path)
        if not found or found[1] not in self.repos:
            return 404, {"error": f"{method} {path} is not there"}
        files = self.repos[found[1]]
        if found[2] == "preupload":
            names = [file["path"] for file in json.loads(body)["files"]]
            modes = {name: "lfs" if name.endswith(IN_LFS) else "regular" for name in names}
            told = [{"path": name, "uploadMode": mode, "shouldIgnore": False} for name, mode in modes.items()]
            return 200, {"files": told}
        if found[2] == "tree":
            return 200, [{"type": "file", "path": n, "oid": _oid(c), "size": len(c)} for n, c in files.items()]
        if found[2] == "revision":
            return 200, {"id": found[1], "sha": _oid(repr(self.commits).encode()), "siblings": []}
        return None if self.breaks else self._commit(found[1], files, body)

    def _upload(self, wanted):
        href = f"{self.url}/lfs/{wanted['oid']}"
        known = {} if wanted["oid"] in self._objects else {"actions": {"upload": {"href": href}}}
        return {"oid": wanted["oid"], "size": wanted["size"], **known}

    def _commit(self, repo, files, body):
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                self.commits.append((repo, value["summary"]))
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
                self.received.append((value["path"], files[value["path"]]))
            elif line["key"] == "lfsFile":
                files[value["path"]] = self._objects[value["oid"]]
            else:
                assert line["key"] == "deletedFile", line
                del files[value["path"]]
        oid = _oid(repr(self.commits).encode())
        return 200, {"commitUrl": f"{self.url}/{repo}/commit/{oid}", "commitOid": oid}


def _oid(content):
    return hashlib.sha1(content).hexdigest()


def _handler_of(hub):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def _answer(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            answer = hub.answer(self.command, self.path.split("?")[0], body)
            if answer is None:
                self.close_connection = True
                return
            status, content = answer
            text = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PUT = do_HEAD = _answer

        def log_message(self, *arguments):
            pass

    return Handler
