"""A stand-in for the Hugging Face hub: the endpoints that its client uses to push and pull a model, in memory.

Files named *.safetensors go through git LFS' batch protocol, as on the hub; all others into the commit.
"""

import base64
import hashlib
import json
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

TOKEN = "hf_stand_in"


class Hub:
    """Repositories by name; each commit is a whole tree."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}  # LFS, by SHA-256
        self.repos: dict[str, list[dict[str, Any]]] = {}
        self.private: set[str] = set()
        self.uploads = 0
        self.damage: dict[str, bytes] = {}  # file name → what is sent instead
        writes = [
            Route("/api/repos/create", self.create, methods=["POST"]),
            Route("/api/validate-yaml", self.validate, methods=["POST"]),
            Route("/api/models/{space}/{name}/preupload/{revision}", self.preupload, methods=["POST"]),
            Route("/api/models/{space}/{name}/commit/{revision}", self.commit, methods=["POST"]),
            Route("/{space}/{name}.git/info/lfs/objects/batch", self.batch, methods=["POST"]),
            Route("/lfs/{oid}", self.upload, methods=["PUT"]),
        ]
        reads = [
            Route("/api/models/{space}/{name}", self.info),
            Route("/api/models/{space}/{name}/revision/{revision}", self.info),
            Route("/{space}/{name}/resolve/{revision}/{path:path}", self.resolve),
        ]
        self.app = Starlette(routes=writes + reads)

    @staticmethod
    def _refused(request: Request) -> Response | None:
        if request.headers.get("authorization") == f"Bearer {TOKEN}":
            return None
        return JSONResponse({"error": "Invalid username or password."}, 401, {"X-Error-Message": "Invalid credentials"})

    @staticmethod
    def _repo(request: Request) -> str:
        return f"{request.path_params['space']}/{request.path_params['name']}"

    async def create(self, request: Request) -> Response:
        if refused := self._refused(request):
            return refused
        asked = await request.json()
        repo = f"{asked['organization']}/{asked['name']}"
        if repo in self.repos:
            return JSONResponse(
                {"error": "You already created this model repo", "url": f"{request.base_url}{repo}"}, 409
            )
        self.repos[repo] = []
        if asked.get("visibility") == "private" or asked.get("private"):
            self.private.add(repo)
        return JSONResponse({"url": f"{request.base_url}{repo}", "name": repo})

    async def validate(self, request: Request) -> Response:
        assert (await request.json())["content"].startswith("---")
        return JSONResponse({"errors": [], "warnings": []})

    async def preupload(self, request: Request) -> Response:
        if refused := self._refused(request):
            return refused
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                "shouldIgnore": False,
            }
            for file in (await request.json())["files"]
        ]
        return JSONResponse({"files": files})

    async def batch(self, request: Request) -> Response:
        asked = await request.json()
        assert asked["operation"] == "upload"
        objects = []
        for one in asked["objects"]:
            upload = {"upload": {"href": f"{request.base_url}lfs/{one['oid']}"}}
            objects.append(one if one["oid"] in self.objects else one | {"actions": upload})
        return JSONResponse({"transfer": "basic", "objects": objects})

    async def upload(self, request: Request) -> Response:
        content = await request.body()
        assert hashlib.sha256(content).hexdigest() == request.path_params["oid"]
        self.objects[request.path_params["oid"]] = content
        self.uploads += 1
        return Response()

    async def commit(self, request: Request) -> Response:
        if refused := self._refused(request):
            return refused
        repo, body = self._repo(request), await request.body()
        tree = dict(self.repos[repo][-1]["tree"]) if self.repos[repo] else {}
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                tree[value["path"]] = {"content": base64.b64decode(value["content"]), "lfs": None}
            elif line["key"] == "lfsFile":
                assert self.objects[value["oid"]] is not None
                tree[value["path"]] = {"content": self.objects[value["oid"]], "lfs": value["oid"]}
            else:
                assert line["key"] == "header"
        sha = hashlib.sha1(body).hexdigest()
        self.repos[repo].append({"sha": sha, "tree": tree})
        return JSONResponse({"commitUrl": f"{request.base_url}{repo}/commit/{sha}", "commitOid": sha})

    def _found(self, request: Request) -> dict[str, Any] | None:
        commits = self.repos.get(self._repo(request), [])
        wanted = request.path_params.get("revision", "main")
        return next((one for one in reversed(commits) if wanted in ("main", one["sha"])), None)

    async def info(self, request: Request) -> Response:
        commit = self._found(request)
        if commit is None:
            known = self._repo(request) in self.repos
            code = "RevisionNotFound" if known else "RepoNotFound"
            return JSONResponse({"error": code}, 404, {"X-Error-Code": code, "X-Error-Message": code})
        siblings = []
        for path, file in commit["tree"].items():
            blob = b"blob %d\0" % len(file["content"]) + file["content"]
            sibling = {"rfilename": path, "size": len(file["content"]), "blobId": hashlib.sha1(blob).hexdigest()}
            if file["lfs"]:
                sibling["lfs"] = {"sha256": file["lfs"], "size": len(file["content"]), "pointerSize": 134}
            siblings.append(sibling)
        return JSONResponse({"id": self._repo(request), "sha": commit["sha"], "siblings": siblings})

    async def resolve(self, request: Request) -> Response:
        commit, path = self._found(request), request.path_params["path"]
        if commit is None or path not in commit["tree"]:
            return JSONResponse({"error": "EntryNotFound"}, 404, {"X-Error-Code": "EntryNotFound"})
        file = commit["tree"][path]
        etag = file["lfs"] or hashlib.sha1(file["content"]).hexdigest()
        content = self.damage.get(path, file["content"])
        headers = {"X-Repo-Commit": commit["sha"], "ETag": f'"{etag}"', "Content-Length": str(len(content))}
        return Response(b"" if request.method == "HEAD" else content, headers=headers)
