"""A pod for each job: on a stand-in for the API of Kubernetes, on which a pod is a process."""

import importlib.util
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.needs import excused_in_ci
from tests.workflow.conftest import CONFIG, ROOT, Project, checkout

FILES = list(yaml.safe_load_all((ROOT / "profiles/kubernetes-pods/job.yaml").read_text()))
RULES = next(file for file in FILES if file["kind"] == "Role")["rules"]
POD = next(file for file in FILES if file["kind"] == "Job")["spec"]["template"]["spec"]
SUBMITTER = POD["containers"][0]
ARGUMENTS = dict(argument.split("=") for argument in SUBMITTER["args"] if "=" in argument)
TINY = {
    **CONFIG, "backends": ["csr"], "methods": {"supervised": {}, "lsp": {}}, "seeds": 2,
    "datasets": {"digits": CONFIG["datasets"]["digits"]},
    "resources": {"memory_mb": 2000, "run_minutes": 1, "gpus": 1},
}  # fmt: skip
OUT_OF_MEMORY = 137  # how a container ends that needs more than its limit


class Pods(ThreadingHTTPServer):
    """As much of the API as the executor asks for. The first pod that trains a student is out of memory."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        super().__init__(("127.0.0.1", 0), Calls)
        self.folder, self.environment = folder, environment
        self.jobs: dict[str, tuple[dict[str, Any], subprocess.Popen[bytes]]] = {}
        self.calls: set[tuple[str, str]] = set()

    def start(self, job: dict[str, Any]) -> None:
        """Run the command of a job's pod in an empty folder, with a home of its own, as a container would."""
        container, name = job["spec"]["template"]["spec"]["containers"][0], job["metadata"]["name"]
        command = [*container["command"], *container["args"]]
        if trains_student(container) and not any(map(trains_student, self.containers())):
            command = ["sh", "-c", f"exit {OUT_OF_MEMORY}"]
        for made in ("home", "workdir"):
            (self.folder / name / made).mkdir(parents=True)
        log = (self.folder / name / "log").open("wb")
        environment = {**self.environment, "HOME": str(self.folder / name / "home")}
        pod = subprocess.Popen(
            command, cwd=self.folder / name / "workdir", env=environment, stdout=log, stderr=subprocess.STDOUT
        )
        self.jobs[name] = (job, pod)

    def containers(self, rule: str = "") -> list[dict[str, Any]]:
        """The containers of the pods that have a job of a rule, or all, in the order in which they were asked for."""
        containers = [job["spec"]["template"]["spec"]["containers"][0] for job, _ in self.jobs.values()]
        return [each for each in containers if f"'{rule}:" in each["args"][-1] or not rule]


def trains_student(container: dict[str, Any]) -> bool:
    return "'distill:" in container["args"][-1]


class Calls(BaseHTTPRequestHandler):
    """Answers with what the executor reads of an answer."""

    server: Pods

    def log_message(self, *_: Any) -> None:
        pass

    def answer(self, body: dict[str, Any], status: int = 200) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def place(self, verb: str) -> list[str]:
        """What is asked for, after the namespace; noted as the rules of a role have it."""
        place = self.path.split("?")[0].partition("/namespaces/default/")[2].split("/")
        self.server.calls.add((verb, "/".join(place[::2])))
        return place

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.place("create") == ["jobs"]:
            self.server.start(body)
        self.answer(body, 201)

    def do_DELETE(self) -> None:
        self.place("delete")
        self.answer({})

    def do_GET(self) -> None:
        if "labelSelector" in self.path:
            self.place("list")
            name = self.path.partition("job-name%3D")[2]
            code = self.server.jobs[name][1].poll()
            state = {"running": {}} if code is None else {"terminated": {"exitCode": code}}
            container = {"name": "snakemake", "image": "", "imageID": "", "ready": True, "restartCount": 0}
            status = {"containerStatuses": [{**container, "state": state}]}
            self.answer({"items": [{"metadata": {"name": f"{name}-pod"}, "status": status}]})
            return
        kind, name, part = self.place("get")
        if (kind, part) == ("jobs", "status"):
            code = self.server.jobs[name][1].poll()
            self.answer({"status": {"active": 1} if code is None else {"failed" if code else "succeeded": 1}})
        elif "previous=true" in self.path.lower():
            self.answer({"message": f'previous terminated container "snakemake" in pod "{name}" not found'}, 400)
        else:
            self.answer({"log": "Killed"})


class OnPods(Project):
    """A checkout that runs with the arguments of job.yaml, on a folder in place of its volume."""

    pods: Pods
    output: str

    @property
    def volume(self) -> Path:
        return self.folder.parent / "volume"

    def command(self, *arguments: str) -> list[str]:
        given = [a.replace("/volume", str(self.volume)) for a in SUBMITTER["args"] if not a.startswith("--configfile")]
        quick = ["--seconds-between-status-checks", "1", "--latency-wait", "5"]
        return [sys.executable, "-m", "snakemake", *arguments, *given, "--configfile", "config/test.yaml", *quick]


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Iterator[OnPods]:
    """A small run, to its end."""
    if importlib.util.find_spec("snakemake_executor_plugin_kubernetes") is None:
        pytest.skip(excused_in_ci("needs the extra kubernetes: make test-pods"))
    folder = tmp_path_factory.mktemp("pods")
    made = checkout(folder / "project")
    pods = Pods(folder / "pods", {"PATH": os.environ["PATH"], "PYTHONPATH": made.environment["PYTHONPATH"]})
    threading.Thread(target=pods.serve_forever, daemon=True).start()
    access = {
        "apiVersion": "v1", "kind": "Config", "current-context": "here", "users": [{"name": "us", "user": {}}],
        "clusters": [{"name": "here", "cluster": {"server": f"http://127.0.0.1:{pods.server_port}"}}],
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "us"}}],
    }  # fmt: skip
    (folder / "access").write_text(yaml.safe_dump(access))
    on_path = f"{made.environment['PYTHONPATH']}:{made.folder / 'profiles/kubernetes-pods'}"
    project = OnPods(made.folder, {**made.environment, "KUBECONFIG": str(folder / "access"), "PYTHONPATH": on_path})
    project.pods = pods
    project.volume.mkdir()
    project.configure(**TINY)
    project.output = project.run()
    yield project
    pods.shutdown()
    for _, pod in pods.jobs.values():
        pod.kill()


def test_the_names_to_fill_in_agree():
    claim = POD["volumes"][0]["persistentVolumeClaim"]["claimName"]
    mounted = SUBMITTER["volumeMounts"][0]["mountPath"]
    assert ARGUMENTS["--container-image"] == SUBMITTER["image"]
    assert ARGUMENTS["--pods-persistent-volumes"] == f"{claim}:{mounted}"
    assert ARGUMENTS["--directory"] == mounted
    folder = Path(SUBMITTER["env"][0]["value"]).relative_to("/project")
    assert (ROOT / folder / "snakemake_executor_plugin_pods/__init__.py").is_file()


def test_each_job_is_a_pod_that_works_on_the_volume(done):
    assert (done.volume / "results/tables/comparison.csv").is_file()
    assert (done.volume / "results/report/index.html").is_file()
    assert len(done.pods.containers("teacher")) == 1
    for name in done.pods.jobs:
        assert not list((done.pods.folder / name / "workdir").iterdir())
    for job, _ in done.pods.jobs.values():
        mounts = job["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]
        assert {"name": "distillbench", "mountPath": str(done.volume)} in mounts


def test_a_second_run_asks_for_no_pod(done):
    before = len(done.pods.jobs)
    assert "Nothing to be done" in done.run()
    assert len(done.pods.jobs) == before


def test_a_dry_run_shows_what_pods_would_ask_for(done):
    output = done.run("--dry-run", "--forceall")
    assert "mem_mb=2000" in output and "gpu=1" in output and "scale=0" in output


def test_a_pod_asks_for_the_estimates_of_its_job(done):
    (teacher,) = done.pods.containers("teacher")
    for amounts, cpu in ((teacher["resources"]["requests"], "950m"), (teacher["resources"]["limits"], "1000m")):
        assert amounts["memory"] == "2000M" and amounts["nvidia.com/gpu"] == "1" and amounts["cpu"] == cpu
    (data,) = done.pods.containers("dataset")
    assert data["resources"]["limits"]["memory"] == "2000M" and "nvidia.com/gpu" not in data["resources"]["limits"]


def test_what_follows_the_runs_is_one_pod(done):
    assert len(done.pods.containers("compare")) == 1
    assert done.pods.containers("compare") == done.pods.containers("report") == done.pods.containers("track")


def test_a_pod_that_is_out_of_memory_is_started_again_with_more(done):
    """Fault: Kubernetes ends a job's pod for its memory.

    Provoked: on a stand-in for the API of Kubernetes the first pod that trains a student ends with status 137.
    Promised: the job is submitted again and asks for twice the memory; the other jobs go on.
    """
    memory = [container["resources"]["limits"]["memory"] for container in done.pods.containers("distill")]
    assert sorted(memory) == ["2000M", "2000M", "4000M"]
    assert "Traceback" not in done.output


def test_the_role_allows_what_the_executor_does_and_no_more(done):
    allowed = {(verb, resource) for rule in RULES for resource in rule["resources"] for verb in rule["verbs"]}
    assert done.pods.calls == allowed
