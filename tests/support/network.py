"""Who may open a connection to whom, under the rendered NetworkPolicies.

A small evaluator of networking.k8s.io/v1: isolation by policyTypes, union of rules, namespace and pod selectors, address
blocks, named and numbered ports. https://kubernetes.io/docs/concepts/services-networking/network-policies/
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Peer:
    """A pod, or an address outside the cluster when it has no namespace."""

    labels: Mapping[str, str] = field(default_factory=dict)
    namespace: str | None = None
    namespace_labels: Mapping[str, str] = field(default_factory=dict)
    ports: Mapping[str, int] = field(default_factory=dict)
    """Name → number of its container ports."""
    address: str = "10.0.0.1"


def admitted(
    policies: Sequence[Mapping[str, Any]], source: Peer, target: Peer, port: int, protocol: str = "TCP"
) -> bool:
    """Whether the source's egress and the target's ingress both let the connection through."""
    return _passes(policies, "Egress", source, target, target, port, protocol) and _passes(
        policies, "Ingress", target, source, target, port, protocol
    )


def selected(selector: Mapping[str, Any] | None, labels: Mapping[str, str]) -> bool:
    """A LabelSelector: the empty one selects all, none selects nothing."""
    if selector is None:
        return False
    for key, value in selector.get("matchLabels", {}).items():
        if labels.get(key) != value:
            return False
    for expression in selector.get("matchExpressions", []):
        key, operator, values = expression["key"], expression["operator"], expression.get("values", [])
        holds = {
            "In": labels.get(key) in values,
            "NotIn": labels.get(key) not in values,
            "Exists": key in labels,
            "DoesNotExist": key not in labels,
        }[operator]
        if not holds:
            return False
    return True


def _passes(
    policies: Sequence[Mapping[str, Any]],
    direction: str,
    subject: Peer,
    other: Peer,
    target: Peer,
    port: int,
    protocol: str,
) -> bool:
    specs = [
        policy["spec"]
        for policy in policies
        if policy["metadata"]["namespace"] == subject.namespace
        and selected(policy["spec"]["podSelector"], subject.labels)
        and direction in policy["spec"]["policyTypes"]
    ]
    if not specs:
        return True  # nothing isolates it
    rules = [rule for spec in specs for rule in spec.get(direction.lower(), [])]
    ends = "from" if direction == "Ingress" else "to"
    return any(
        _port_named(rule.get("ports"), target, port, protocol)
        and (not rule.get(ends) or any(_matches(peer, other, subject) for peer in rule[ends]))
        for rule in rules
    )


def _port_named(ports: Sequence[Mapping[str, Any]] | None, target: Peer, port: int, protocol: str) -> bool:
    if not ports:
        return True
    for entry in ports:
        if entry.get("protocol", "TCP") != protocol:
            continue
        wanted = entry.get("port")
        first = target.ports.get(wanted) if isinstance(wanted, str) else wanted
        if wanted is None or (first is not None and first <= port <= entry.get("endPort", first)):
            return True
    return False


def _matches(peer: Mapping[str, Any], other: Peer, subject: Peer) -> bool:
    if "ipBlock" in peer:
        address = ipaddress.ip_address(other.address)
        block = peer["ipBlock"]
        return address in ipaddress.ip_network(block["cidr"]) and not any(
            address in ipaddress.ip_network(excepted) for excepted in block.get("except", [])
        )
    if other.namespace is None:
        return False
    if "namespaceSelector" in peer:
        labels = {"kubernetes.io/metadata.name": other.namespace, **other.namespace_labels}
        if not selected(peer["namespaceSelector"], labels):
            return False
    elif other.namespace != subject.namespace:
        return False
    return "podSelector" not in peer or selected(peer["podSelector"], other.labels)
