"""deploy/ before its linters: what no test runs (the image's build, a Helm install, compose) is judged by programs that know it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

pytestmark = [pytest.mark.linters, pytest.mark.timeout(900)]  # the first run builds helm

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "helm" / "streamproc"
JOBS = ["--set-file", rf"jobs.page_views\.yaml={DEPLOY / 'compose' / 'jobs' / 'page_views.yaml'}"]
KUBERNETES = ["--kube-version", "1.33.0"]
EVERYTHING = """
replicas: 3
env: [{name: AWS_REGION, value: eu-west-1}]
envFrom: [{secretRef: {name: kafka}}]
adminToken: {secretName: token}
imagePullSecrets: [{name: registry}]
serviceMonitor: {enabled: true, labels: {release: prometheus}}
serviceAccount: {annotations: {eks.amazonaws.com/role-arn: 'arn:aws:iam::123456789012:role/views'}}
extraVolumes: [{name: code, emptyDir: {}}]
extraVolumeMounts: [{name: code, mountPath: /code}]
podAnnotations: {team: web}
nodeSelector: {kubernetes.io/os: linux}
tolerations: [{key: streams, operator: Exists}]
affinity: {nodeAffinity: {}}
"""


@pytest.fixture(scope="module")
def linters() -> Path:
    """The folder of the linters; skips without Go."""
    if shutil.which("go") is None:
        pytest.skip("helm is built with Go, which is not installed")
    installed = subprocess.run([ROOT / "tests" / "servers" / "linters" / "install"], capture_output=True, text=True, check=False)
    if installed.returncode:
        pytest.skip(f"the linters cannot be had: {installed.stderr.strip()[-300:]}")
    return Path(installed.stdout.strip())


@pytest.fixture
def everything(tmp_path: Path) -> list[str]:
    """Options that fill in every value of the chart."""
    (tmp_path / "values.yaml").write_text(EVERYTHING)
    return ["--values", str(tmp_path / "values.yaml")]


def done(*command: str | Path) -> str:
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout + ran.stderr


def test_hadolint_accepts_the_dockerfile(linters: Path) -> None:
    assert done(linters / "hadolint", DEPLOY / "Dockerfile") == ""


def test_compose_accepts_its_file(linters: Path) -> None:
    model = yaml.safe_load(done(linters / "compose-go", DEPLOY / "compose" / "compose.yaml"))
    assert set(model["services"]) == {"kafka", "clicks", "worker", "prometheus", "grafana"}


@pytest.mark.parametrize("full", [False, True])
def test_helm_accepts_the_chart_and_kubernetes_its_resources(linters: Path, everything: list[str], tmp_path: Path, full: bool) -> None:
    values = everything if full else []
    assert "0 chart(s) failed" in done(linters / "helm", "lint", "--strict", CHART, *JOBS, *KUBERNETES, *values)
    rendered = tmp_path / "rendered.yaml"
    rendered.write_text(done(linters / "helm", "template", "views", CHART, *JOBS, *KUBERNETES, *values))
    done(linters / "kubernetes-validate", "--strict", "--no-warn", rendered)  # what it has no schema of (ServiceMonitor) it lets pass
    resources = {resource["kind"]: resource for resource in yaml.safe_load_all(rendered.read_text())}
    assert resources.keys() - {"ServiceMonitor"} == {"Deployment", "ConfigMap", "Service", "ServiceAccount", "PodDisruptionBudget"}
    assert ("ServiceMonitor" in resources) is full
    assert resources["ConfigMap"]["data"]["page_views.yaml"] == (DEPLOY / "compose" / "jobs" / "page_views.yaml").read_text()


def test_helm_refuses_values_that_the_chart_does_not_know_and_no_jobs(linters: Path) -> None:
    for wrong in ([], [*JOBS, "--set", "replcas=3"], [*JOBS, "--set-string", "jobs.readme=x"], [*JOBS, "--set", "drainTimeoutSeconds=0"]):
        ran = subprocess.run([linters / "helm", "template", CHART, *KUBERNETES, *wrong], capture_output=True, text=True, check=False)
        assert ran.returncode == 1
        assert re.search("jobs is empty|replcas|readme|drainTimeoutSeconds", ran.stderr), ran.stderr


def test_the_wheel_builds_from_what_the_image_is_given(tmp_path: Path) -> None:
    """The files that .dockerignore lets in, and nothing else."""
    lines = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    tops = [line[1:] for line in lines if line.startswith("!")]
    left_out = [line.removeprefix("**/") for line in lines if line.startswith("**/")]
    (context := tmp_path / "context").mkdir()
    for top in tops:
        if (ROOT / top).is_dir():
            shutil.copytree(ROOT / top, context / top, ignore=shutil.ignore_patterns(*left_out))
        else:
            shutil.copy(ROOT / top, context / top)
    done(sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path / "dist", context)
    [wheel] = (tmp_path / "dist").glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {"streamproc/cli.py", "sinks/files.py", "windows/tumbling.py"} <= set(names)
