"""Checks what is deployed with: the chart, its renderings, the alerts and the plain manifests.

Renders every case of helm/goldens with Helm's own engine, compares it with its golden, validates it against the schemas of
Kubernetes, holds it to the Pod Security standard "restricted", and lets `strongroomd check` judge the configuration in it.
The alerts are parsed, and fired by promtool where there is one. `--update` writes the goldens and the kustomize base instead.

What it cannot do: there are no schemas here for cert-manager's and the Prometheus operator's kinds, and no cluster.
"""

import argparse
import difflib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import helm_python as helm
import kubernetes_validate
import promql_parser
import yaml

DEPLOY = pathlib.Path(__file__).resolve().parent
CHART = DEPLOY / "helm" / "strongroom"
GOLDENS = DEPLOY / "helm" / "goldens"
BASE = DEPLOY / "kustomize" / "base" / "strongroom.yaml"
ALERTS = CHART / "files" / "alerts.yaml"

# The oldest that the chart allows, and the newest that there are schemas for.
KUBERNETES = ["1.30", "1.37"]
# Kinds that no schema is at hand for.
WITHOUT_SCHEMA = {"Certificate", "ServiceMonitor", "PrometheusRule"}
# The only case that is not "restricted", and why.
NOT_RESTRICTED = {"kms-host-path": {"volume kms is a hostPath"}}
# Volumes that "restricted" allows.
VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
# Values that the chart must refuse: a typing error, a wrong type, a value outside of its bounds, and what is required.
REFUSED = {
    "an unknown value": {"replicas": 3},
    "an unknown value further down": {"config": {"cash": "128MiB"}},
    "a wrong type": {"initialise": "yes"},
    "a drain of a day": {"config": {"drainTimeoutSeconds": 86400}},
    "a second line in the configuration": {"config": {"logLevel": 'info"\n[store]'}},
    "a shell in a key": {"root": {"file": {"key": "$(id)"}}},
    "no recovery key": {"root": {"recovery": {"keys": []}}},
    "a transit engine without an address": {"root": {"provider": "transit"}},
    "a transit engine without TLS": {"root": {"provider": "transit", "transit": {"address": "http://bao:8200"}}},
    "a KMS without a plugin": {"root": {"provider": "kms"}},
    "a certificate without an issuer": {"tls": {"certManager": {"enabled": True}}},
    "an anchor without a claim's name": {"anchor": {"existingClaim": "Not A Name"}},
    "a global value": {"global": {"x": 1}},
}


class Tally:
    """Counts what held and what did not."""

    def __init__(self):
        self.passed = self.failed = 0

    def expect(self, name, problems):
        """Notes one check, which holds when there are no problems."""
        problems = list(problems)
        if problems:
            self.failed += 1
            print(f"FAILED {name}")
            for problem in problems:
                print("   ", str(problem).replace("\n", "\n    "))
        else:
            self.passed += 1


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--update", action="store_true", help="write the goldens and the kustomize base")
    parser.add_argument("--strongroomd", help="the server, for `strongroomd check`; without it, that is an error")
    parser.add_argument("--promtool", default=shutil.which("promtool"), help="fires the alerts")
    arguments = parser.parse_args()
    tally = Tally()
    with helm.Chart.load(CHART) as chart:
        renderings = {case.name.removesuffix(".values.yaml"): (case, render(chart, read_yaml(case)))
                      for case in sorted(GOLDENS.glob("*.values.yaml"))}
        base = plain(render(chart, {}))
        if arguments.update:
            update(renderings, base)
        for name, values in REFUSED.items():
            tally.expect(f"refused: {name}", [] if refuses(chart, values) else ["it was rendered"])
    for name, (case, text) in renderings.items():
        check_case(tally, name, read_yaml(case), text, arguments.strongroomd)
    orphans = {path.name for path in GOLDENS.glob("*.yaml")} - {f"{n}{e}" for n in renderings for e in (".yaml", ".values.yaml")}
    tally.expect("every golden has its case", sorted(orphans))
    tally.expect("kustomize: base", differences(BASE, base))
    check_schemas(tally, "kustomize", documents(base))
    check_kustomize(tally)
    check_alerts(tally, arguments.promtool)
    print(f"{tally.passed} passed, {tally.failed} failed")
    return 1 if tally.failed else 0


def read_yaml(path):
    return yaml.safe_load(path.read_text()) or {}


def render(chart, values):
    """All templates in one text, by name; without the notes."""
    rendered = chart.render(values, name="strongroom", namespace="strongroom")
    parts = [(name, text.strip()) for name, text in sorted(rendered.items()) if name.endswith(".yaml")]
    return "".join(f"---\n# {name}\n{text.removeprefix('---').strip()}\n" for name, text in parts if text)


def plain(text):
    """The manifests without what only Helm understands."""
    of_helm = ("helm.sh/", "app.kubernetes.io/managed-by", "# strongroom/templates/")
    lines = [line for line in text.splitlines() if not line.strip().startswith(of_helm)]
    # An annotation of Helm alone leaves its head behind.
    lines = [line for i, line in enumerate(lines)
             if not (line.strip() == "annotations:" and not lines[i + 1].startswith(line.replace("annotations:", " ")))]
    note = "# Written by deploy/check.py --update, from the chart's defaults. Change it with patches, not here.\n"
    return note + "\n".join(lines) + "\n"


def refuses(chart, values):
    try:
        chart.render(values, name="strongroom", namespace="strongroom")
    except helm.HelmError:
        return True
    return False


def update(renderings, base):
    for name, (_, text) in renderings.items():
        (GOLDENS / f"{name}.yaml").write_text(text)
    BASE.write_text(base)


def documents(text):
    return [document for document in yaml.safe_load_all(text) if document]


def check_case(tally, name, values, text, strongroomd):
    lint = helm.lint(str(CHART), values, strict=True, kube_version="v1.30.0")
    tally.expect(f"{name}: lint", [m["error"] for m in lint["messages"] if m["severity"] > 1] + lint["errors"])
    tally.expect(f"{name}: golden", differences(GOLDENS / f"{name}.yaml", text))
    manifests = documents(text)
    tally.expect(f"{name}: names are unique", repeated(manifests))
    check_schemas(tally, name, manifests)
    found = {problem for manifest in manifests for problem in not_restricted(manifest)}
    tally.expect(f"{name}: Pod Security restricted", found ^ NOT_RESTRICTED.get(name, set()))
    tally.expect(f"{name}: no secret is made here", [m["metadata"]["name"] for m in manifests if m["kind"] == "Secret"])
    tally.expect(f"{name}: volumes", (p for m in manifests for p in unmounted(m)))
    configs = [m["data"]["strongroom.toml"] for m in manifests if "strongroom.toml" in m.get("data", {})]
    tally.expect(f"{name}: strongroomd check", judged(configs, strongroomd))


def differences(golden, text):
    was = golden.read_text() if golden.exists() else ""
    return list(difflib.unified_diff(was.splitlines(), text.splitlines(), str(golden.name), "rendered", lineterm=""))


def repeated(manifests):
    names = [(m["kind"], m["metadata"]["name"]) for m in manifests]
    return sorted({name for name in names if names.count(name) > 1})


def check_schemas(tally, name, manifests):
    for version in KUBERNETES:
        problems = []
        for manifest in manifests:
            if manifest["kind"] in WITHOUT_SCHEMA:
                continue
            try:
                kubernetes_validate.validate(manifest, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                problems.append(f"{manifest['kind']} {manifest['metadata']['name']}: {error.message}")
        tally.expect(f"{name}: schemas of Kubernetes {version}", problems)


def pod_of(manifest):
    spec = manifest.get("spec", {})
    return spec if manifest["kind"] == "Pod" else spec.get("template", {}).get("spec")


def not_restricted(manifest):
    """What the Pod Security standard "restricted" forbids, field by field, and automounted tokens besides."""
    pod = pod_of(manifest)
    if pod is None:
        return
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(field):
            yield f"{field} is set"
    if pod.get("automountServiceAccountToken") is not False:
        yield "a service account's token is mounted"
    for volume in pod.get("volumes", []):
        for kind in volume.keys() - {"name"} - VOLUMES:
            yield f"volume {volume['name']} is a {kind}"
    outer = pod.get("securityContext", {})
    for container in pod.get("initContainers", []) + pod["containers"]:
        inner = container.get("securityContext", {})
        one = {**outer, **inner}
        name = container["name"]
        if inner.get("privileged") or inner.get("allowPrivilegeEscalation") is not False:
            yield f"{name} may gain privileges"
        if inner.get("capabilities") != {"drop": ["ALL"]}:
            yield f"{name} keeps capabilities"
        if not one.get("runAsNonRoot") or not one.get("runAsUser"):
            yield f"{name} may be root"
        if one.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
            yield f"{name} has no seccomp profile"
        if not inner.get("readOnlyRootFilesystem"):
            yield f"{name} can write to its root"
        if "memory" not in container.get("resources", {}).get("limits", {}):
            yield f"{name} has no limit of memory"
        if any(port.get("hostPort") for port in container.get("ports", [])):
            yield f"{name} takes a port of the host"


def unmounted(manifest):
    """Mounts without a volume, and volumes that nobody mounts."""
    pod = pod_of(manifest)
    if pod is None:
        return
    containers = pod.get("initContainers", []) + pod["containers"]
    mounted = {mount["name"] for container in containers for mount in container.get("volumeMounts", [])}
    declared = {volume["name"] for volume in pod.get("volumes", [])}
    yield from (f"{manifest['kind']}: {name} is not on both sides" for name in sorted(mounted ^ declared))


def judged(configs, strongroomd):
    """Lays out the files that a configuration names as they are mounted, and asks the server's own check."""
    if len(configs) != 1:
        return [f"{len(configs)} configurations"]
    if not strongroomd:
        return ["--strongroomd names no server"]
    with tempfile.TemporaryDirectory() as root:
        text = configs[0]
        for top in ("/etc/strongroom/", "/run/", "/var/lib/"):
            text = text.replace(f'"{top}', f'"{root}{top}')
        mounted = [word for word in text.split('"') if word.startswith(root) and not word.endswith((".sock", "/store"))]
        for path in map(pathlib.Path, mounted):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("x")
            # As the chart mounts it: for the group, or copied for its owner.
            path.chmod(0o400 if "own" in path.parts else 0o440)
        config = pathlib.Path(root, "strongroom.toml")
        config.write_text(text)
        environment = {k: v for k, v in os.environ.items() if not k.startswith("STRONGROOM_")}
        result = subprocess.run([strongroomd, "check", "--config", config], capture_output=True, text=True, env=environment)
    return [] if result.returncode == 0 else [f"exit code {result.returncode}: {result.stderr}"]


def check_kustomize(tally):
    """Builds the base where kubectl is at hand."""
    if not shutil.which("kubectl"):
        print("skipped: kubectl is not here to build the kustomize base")
        return
    built = subprocess.run(["kubectl", "kustomize", BASE.parent], capture_output=True, text=True)
    tally.expect("kustomize: build", [built.stderr] if built.returncode else [])
    names = lambda text: sorted((m["kind"], m["metadata"]["name"]) for m in documents(text))
    tally.expect("kustomize: nothing is lost", set(names(BASE.read_text())) ^ set(names(built.stdout)))


def check_alerts(tally, promtool):
    rules = [rule for group in read_yaml(ALERTS)["groups"] for rule in group["rules"]]
    for rule in rules:
        try:
            promql_parser.parse(rule["expr"])
            tally.expect(f"{rule['alert']}: expression", [])
        except ValueError as error:
            tally.expect(f"{rule['alert']}: expression", [error])
    tests = read_yaml(DEPLOY / "alerts_test.yaml")["tests"]
    fired = {check["alertname"] for test in tests for check in test["alert_rule_test"] if check["exp_alerts"]}
    tally.expect("a test fires every alert", {rule["alert"] for rule in rules} ^ fired)
    if not promtool:
        tally.expect("alerts: promtool", ["promtool is not here"])
        return
    for command in (["check", "rules", ALERTS], ["test", "rules", DEPLOY / "alerts_test.yaml"]):
        result = subprocess.run([promtool, *command], capture_output=True, text=True)
        tally.expect(f"alerts: promtool {command[0]}", [result.stdout + result.stderr] if result.returncode else [])


if __name__ == "__main__":
    sys.exit(main())
