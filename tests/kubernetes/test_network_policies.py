"""The rendered NetworkPolicies admit what is meant, and nothing else."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from tests.support.network import Peer, admitted
from tests.support.rendering import Rendering, container_ports, each

PORTS = (8000, 8001, 8002, 5557)
OUTSIDE = Peer(address="203.0.113.7")
CALLER = Peer({"app": "moderation"}, "moderation", {"deepfake-vs-real/caller": "true"})
STRANGER = Peer({"app": "shop"}, "shop")
PROMETHEUS = Peer({"app.kubernetes.io/name": "prometheus"}, "monitoring")
GRAFANA = Peer({"app.kubernetes.io/name": "grafana"}, "monitoring")
FALSE_PROMETHEUS = Peer({"app.kubernetes.io/name": "prometheus"}, "shop")
DNS = Peer({"k8s-app": "kube-dns"}, "kube-system", ports={"dns": 53})
NODE_DNS = Peer(address="169.254.20.10")
METADATA = Peer(address="169.254.169.254")
API_SERVER = Peer(address="10.96.0.1")
# In the namespace itself, but none of ours.
NEIGHBOUR = Peer({"app": "debug"}, "deepfake")


def pod(rendering: Rendering, name: str) -> Peer:
    template = rendering.pod_templates[name]
    return Peer(template["metadata"]["labels"], "deepfake", ports=container_ports(template["spec"]["containers"][0]))


def open_ports(rendering: Rendering, source: Peer, target: Peer) -> list[int]:
    policies = rendering.of_kind("NetworkPolicy")
    return [port for port in PORTS if admitted(policies, source, target, port)]


@each
def test_callers_reach_inference_and_prometheus_the_metrics(rendering: Rendering) -> None:
    triton = pod(rendering, "Deployment triton")
    assert open_ports(rendering, CALLER, triton) == [8000, 8001]
    assert open_ports(rendering, PROMETHEUS, triton) == [8002]
    for source in (STRANGER, GRAFANA, FALSE_PROMETHEUS, OUTSIDE, NEIGHBOUR, triton):
        assert open_ports(rendering, source, triton) == [], source
    assert not admitted(rendering.of_kind("NetworkPolicy"), CALLER, triton, 8001, "UDP")


@each
def test_triton_calls_nobody(rendering: Rendering) -> None:
    triton, policies = pod(rendering, "Deployment triton"), rendering.of_kind("NetworkPolicy")
    targets = (DNS, NODE_DNS, METADATA, API_SERVER, OUTSIDE, CALLER)
    for target, port, protocol in itertools.product(targets, (53, 80, 443, 6443), ("TCP", "UDP")):
        assert not admitted(policies, triton, target, port, protocol), target


@each
def test_the_load_generator_reaches_triton_its_master_and_dns(rendering: Rendering) -> None:
    if "loadtest" not in rendering.components:
        return
    policies, triton = rendering.of_kind("NetworkPolicy"), pod(rendering, "Deployment triton")
    master, worker = pod(rendering, "Job locust-master"), pod(rendering, "Job locust-worker")
    assert open_ports(rendering, worker, triton) == open_ports(rendering, master, triton) == [8000, 8001]
    assert open_ports(rendering, worker, master) == [5557]
    for stranger in (CALLER, STRANGER, PROMETHEUS, OUTSIDE, NEIGHBOUR, triton):
        assert open_ports(rendering, stranger, master) == [], stranger
    for names in (DNS, NODE_DNS):
        assert admitted(policies, worker, names, 53, "UDP")
        assert admitted(policies, worker, names, 53, "TCP")
        assert not admitted(policies, worker, names, 443)
    for target in (METADATA, API_SERVER, OUTSIDE, CALLER):
        assert not any(admitted(policies, worker, target, port) for port in (53, 80, 443)), target


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({}, True),
        ({"from": [{"namespaceSelector": {}}]}, True),
        ({"from": [{"podSelector": {}}]}, False),  # of its own namespace only
        ({"from": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "x"}}}]}, False),
        (
            {
                "from": [
                    {"namespaceSelector": {"matchExpressions": [{"key": "team", "operator": "In", "values": ["a"]}]}}
                ]
            },
            True,
        ),
        ({"from": [{"namespaceSelector": {"matchExpressions": [{"key": "team", "operator": "Exists"}]}}]}, True),
        (
            {
                "from": [
                    {"namespaceSelector": {"matchExpressions": [{"key": "team", "operator": "NotIn", "values": ["a"]}]}}
                ]
            },
            False,
        ),
        ({"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}, True),
        ({"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/24"]}}]}, False),
        ({"ports": [{"port": 7999, "endPort": 8001}]}, True),
        ({"ports": [{"port": "http"}]}, True),
        ({"ports": [{"port": "other"}]}, False),
        ({"ports": [{"protocol": "UDP", "port": 8000}]}, False),
    ],
)
def test_the_evaluator_reads_rules_as_kubernetes_does(rule: dict[str, object], expected: bool) -> None:
    source = Peer({"app": "y"}, "other", {"team": "a"})
    target = Peer({}, "deepfake", ports={"http": 8000})
    policy = {
        "metadata": {"namespace": "deepfake"},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [rule]},
    }
    assert admitted([policy], source, target, 8000) is expected
    assert admitted([policy], source, replace(target, namespace="elsewhere"), 8000)  # isolated by no policy
