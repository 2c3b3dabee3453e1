#!/usr/bin/env bash
# Serves stand-in weights in a kind cluster as overlays/cpu says: one verdict over gRPC, one over HTTP, and a rollout
# while clients call. Needs docker, kubectl, a kind with Kubernetes 1.34 or newer, and disk for NVIDIA's image three times.
#   deploy/kubernetes/try_in_kind.sh         later: kind delete cluster --name deepfake
set -euo pipefail
cd "$(dirname "$0")/../.."

overlay=deploy/kubernetes/overlays/cpu
server=$(kubectl kustomize $overlay | sed -n 's/^ *image: //p')
caller=deepfake-vs-real-caller:local
grpc=grpc://triton-headless.deepfake.svc:8001
http=http://triton.deepfake.svc:8000

build() {
  docker build --file deploy/docker/Dockerfile --build-arg MODEL=stand-in --build-arg PRECISION=fp32 "$@" .
}

# As `kind load docker-image` does, without its copy on the disk.
load() {
  docker save "$1" | docker exec --interactive deepfake-control-plane ctr --namespace=k8s.io images import --digests -
}

in_caller() {
  kubectl --namespace callers exec --stdin caller -- "$@"
}

build --target loadtest --tag $caller
build --tag "$server"
kind create cluster --name deepfake --wait 3m
load $caller
load "$server"

kubectl apply --kustomize $overlay
kubectl create namespace callers
kubectl label namespace callers deepfake-vs-real/caller=true
kubectl --namespace callers run caller --image=$caller --image-pull-policy=Never --command -- sleep infinity
kubectl --namespace deepfake rollout status deployment/triton --timeout=10m
kubectl --namespace callers wait --for=condition=Ready pod/caller --timeout=3m

in_caller python -c 'from PIL import Image; Image.new("RGB", (640, 480), "teal").save("/tmp/photo.jpg")'
in_caller deepfake classify /tmp/photo.jpg --url $grpc
in_caller deepfake classify /tmp/photo.jpg --url $http

# A client of each protocol calls until the old pod is gone. A failed call ends this with its error.
in_caller python - $grpc $http <<'CALLS' &
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from deepfake_client import DeepfakeClient


def call(url: str) -> str:
    calls = 0
    with DeepfakeClient(url) as client:
        while not Path("/tmp/drained").exists():
            client.classify("/tmp/photo.jpg")
            calls += 1
    return f"{url}: {calls} calls, none failed"


with ThreadPoolExecutor() as pool:
    print(*pool.map(call, sys.argv[1:]), sep="\n")
CALLS
calls=$!
old=$(kubectl --namespace deepfake get pods --selector app.kubernetes.io/component=triton --output name)
kubectl --namespace deepfake rollout restart deployment/triton
kubectl --namespace deepfake rollout status deployment/triton --timeout=10m
kubectl --namespace deepfake wait --for=delete "$old" --timeout=5m
in_caller touch /tmp/drained
wait $calls
