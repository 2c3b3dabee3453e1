#!/usr/bin/env bash
# Prints the path of a Python that can serve; `make` asks before it installs anything.
#
#   deploy/find_python.sh FOLDER [PYTHON]
#
# FOLDER receives a Python where the machine has none. PYTHON is taken alone, or refused with the reason.
set -euo pipefail

check=$(dirname "${BASH_SOURCE[0]}")/deepfake_deploy/embedded/installation.py
folder=$(realpath -m "$1")
given=${2:-}

if [ -n "$given" ]; then
  "$given" "$check" || { echo "make: PYTHON=$given will not do; name another, or leave it out" >&2; exit 1; }
  command -v "$given"
  exit
fi

for python in python3 python3.12 python3.11 python3.10; do
  if "$python" "$check" 2>/dev/null; then
    command -v "$python"
    exit
  fi
done

# uv fetches a whole Python without root: one that is here already, or one from PyPI.
fetch() {
  uv=$(command -v uv) || {
    python3 -m venv "$folder/uv" && timeout 120 "$folder/uv/bin/python" -m pip install --quiet --retries 1 uv || return
    uv=$folder/uv/bin/uv
  }
  UV_HTTP_RETRIES=1 timeout 300 "$uv" python install --no-bin --no-cache --install-dir "$folder" 3.12
}

echo 'make: no Python 3.10 to 3.12 with venv and its shared library is here; fetching one with uv' >&2
if reason=$(fetch 2>&1); then
  rm -rf "$folder/uv"
  for python in "$folder"/cpython-3.12*/bin/python3.12; do
    if "$python" "$check"; then
      echo "$python"
      exit
    fi
  done
fi
rm -rf "$folder"
reason=$(grep -m 1 -i '^error' <<< "$reason" || tail -n 1 <<< "$reason")
cat >&2 <<MESSAGE
make: that failed ($reason). Install one and run make again:
  Debian 12, Ubuntu 22.04 or 24.04:  sudo apt-get install make python3-venv libpython3-dev
  Fedora:                            sudo dnf install make python3.12
or name one: make demo PYTHON=/path/to/python3.12
MESSAGE
exit 1
