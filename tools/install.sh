#!/usr/bin/env bash
# Install the project and its locked dependencies into a virtual environment:  tools/install.sh VENV LOCK
# Each locked package is checked against its hashes. torch is not: which build suits depends on the machine.
set -euo pipefail

venv=$1 lock=$2
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
pip=("$venv/bin/python" -m pip -qq)  # errors only

has_nvidia_gpu() { [ -e /proc/driver/nvidia/version ] || nvidia-smi --list-gpus >/dev/null 2>&1; }

install_torch() {
    local where=()
    has_nvidia_gpu || where=(--extra-index-url https://download.pytorch.org/whl/cpu)
    # Of 2.13.0 and 2.13.0+cpu, pip takes the latter. Without retries, an index that cannot be reached costs no time; whatever
    # else fails is tried again patiently.
    "${pip[@]}" install --retries 0 --timeout 15 "${where[@]}" --constraint "$root/constraints.txt" torch ||
        "${pip[@]}" install --constraint "$root/constraints.txt" torch
}

echo "installing the packages of ${lock#"$root"/}"
"${pip[@]}" install --require-hashes --no-deps --requirement "$lock"
echo "installing $(cat "$root/constraints.txt")"
install_torch
echo "installing mtbert"
"${pip[@]}" install --no-deps --no-build-isolation --editable "$root"
"$venv/bin/python" -c 'import torch; print("torch", torch.__version__, "on", "CUDA" if torch.cuda.is_available() else "the CPU")'
