#!/usr/bin/env bash
# Install the project and its locked dependencies into a virtual environment:  tools/install.sh VENV LOCK
# Both are relative to the project's root. Locked packages are verified by hash, except torch, whose build depends on the machine.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

venv=$1 lock=$2
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
pip=("$venv/bin/python" -m pip -qq)  # errors only

has_nvidia_gpu() { [ -e /proc/driver/nvidia/version ] || nvidia-smi --list-gpus >/dev/null 2>&1; }

# uv takes seconds where pip takes a minute. pip does it where uv cannot run or reads other settings than the machine's pip. Bytecode is
# compiled now, as pip does: with PYTHONDONTWRITEBYTECODE set, each of the many processes would compile it again.
install_locked() {
    "${pip[@]}" install --require-hashes --no-deps --requirement requirements/installer.txt &&
        "$venv/bin/uv" pip install --no-config --quiet --compile-bytecode --python "$venv/bin/python" --require-hashes --no-deps --requirement "$lock" ||
        "${pip[@]}" install --require-hashes --no-deps --requirement "$lock"
}

install_torch() {
    local where=()
    has_nvidia_gpu || where=(--extra-index-url https://download.pytorch.org/whl/cpu)
    # pip prefers 2.13.0+cpu to 2.13.0. The first attempt has no retries, so that an unreachable index costs no time; the second
    # has pip's usual retries and no extra index.
    "${pip[@]}" install --retries 0 --timeout 15 "${where[@]}" --constraint constraints.txt torch ||
        "${pip[@]}" install --constraint constraints.txt torch
}

# By default DVC keeps its state, which it unpickles, in a folder that all users of the machine can write to. A relative path would
# not work in subfolders and experiments, and DVC can write only ASCII into its settings.
give_dvc_a_private_folder() {
    local folder=$PWD/.dvc-site-cache
    [[ $folder != *[![:ascii:]]* ]] || folder=$HOME/.cache/mtbert/dvc
    mkdir -p "$folder"
    chmod 700 "$folder"
    "$venv/bin/dvc" config --quiet --local core.site_cache_dir "$folder" ||
        echo "note: DVC keeps its state in a folder that all users of this machine share; set DVC_SITE_CACHE_DIR to use another" >&2
}

echo "installing the packages of $lock"
install_locked
echo "installing $(cat constraints.txt)"
install_torch
echo "installing mtbert"
"${pip[@]}" install --no-deps --no-build-isolation --editable .
[ ! -d .dvc ] || give_dvc_a_private_folder
[ ! -d .dvc ] || "$venv/bin/python" -m mtbert.report.offline || echo "note: pages of dvc plots will load their JavaScript from the network" >&2
"$venv/bin/python" -c 'import torch; print("torch", torch.__version__, "on", "CUDA" if torch.cuda.is_available() else "the CPU")'
