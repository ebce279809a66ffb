#!/usr/bin/env bash
# Run the pipeline and print the path of its report:  [PROFILE=NAME] [DATA=FOLDER|download] tools/reproduce.sh
# A profile other than that of params.yaml runs as an experiment in a temporary workspace, so that nothing here changes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() { echo "error: $*" >&2; exit 1; }

# Copy the course's files from a folder into data/course, where DVC tracks them: experiments get them from its cache.
take_data() {
    local from=${1/#\~\//$HOME/} file read_from found=()
    [ -d "$from" ] || fail "DATA=$1: no such folder; name the folder with the course's files"
    for file in ids-sst-{train,dev,test-student}.csv {quora,sts}-{train,dev,test-student}.csv; do
        if [ -f "$from/$file" ]; then
            found+=("data/course/$file")
        elif [ -f "data/course/$file" ]; then
            echo "note: data/course/$file is kept, although $from has no such file; remove it and its .dvc file if it belongs to other data"
        fi
    done
    [ ${#found[@]} -gt 0 ] || fail "DATA=$1: has none of the course's files (ids-sst-train.csv, quora-train.csv, ...); name the folder that has them"
    read_from=$(data_folder "$profile") || exit 1
    [ -n "$read_from" ] || fail "DATA=$1: the profile $profile$([ "$profile" != "$current" ] || echo ", which params.yaml selects,")" \
        "does not read it; give PROFILE=course, or set profiles.$profile.data.source to folder"
    [ "$read_from" -ef data/course ] || fail "DATA=$1: its files would go to data/course, but data.path in params.yaml is $read_from;" \
        "leave DATA out, or set data.path to data/course"
    for file in "${found[@]}"; do
        # Replaced as a whole: it may be a link into DVC's cache, which must not change, and a copy may be interrupted.
        cmp -s "$from/${file##*/}" "$file" && continue
        cp "$from/${file##*/}" "data/course/.${file##*/}.tmp"
        mv -f "data/course/.${file##*/}.tmp" "$file"
    done
    dvc add "${found[@]}" >/dev/null # --quiet would hide errors too
}

# The folder that a profile reads, empty if it reads none; if params.yaml is invalid, its errors.
data_folder() {
    python -c 'import sys
from mtbert.params import load_params
from mtbert.pipeline.start import guarded
def show():
    data = load_params(profile=sys.argv[1] or None).data
    print(data.path if data.source == "folder" else "")
sys.exit(guarded(show))' "$1"
}

# Train and score two runs at a time. DVC runs one stage after another, and much of a stage (its start, reading, scoring) uses one core.
# A run that fails here is told again by the `dvc repro` that follows, as the last thing on the screen.
run_two_lanes() {
    local runs lane
    dvc repro prepare
    mapfile -t runs < <(dvc stage list --name-only | sed -n 's/^evaluate@//p')
    for lane in 0 1; do
        (
            trap - INT # bash lets a background process ignore Ctrl-C
            stages=()
            for ((i = lane; i < ${#runs[@]}; i += 2)); do
                stages+=("convert@${runs[i]}" "train@${runs[i]}" "evaluate@${runs[i]}")
            done
            # With --single-item DVC does not lock what other stages read.
            [ ${#stages[@]} = 0 ] || exec dvc --wait-for-lock repro --single-item "${stages[@]}"
        ) &
    done
    trap 'wait; exit 130' INT
    wait
    trap - INT
}

# Before data is copied, and before a training of hours.
check_experiment() {
    git rev-parse --quiet --verify HEAD >/dev/null 2>&1 || fail "PROFILE=$profile runs as a DVC experiment, which needs a git" \
        "repository with a commit: git init && git add -A && git commit -m start"
    [[ $PWD != *[![:ascii:]]* ]] || fail "PROFILE=$profile runs as a DVC experiment, which fails if the path has non-ASCII" \
        "characters: move $PWD"
    # Set below, before there was a repository; DVC then refuses experiments.
    ! grep -qs no_scm .dvc/config.local || dvc config --local --unset core.no_scm
}

run_experiment() {
    local profile=$1 head
    local settings=(--set-param "profile=$profile") estimate=("$profile")
    if [ "${DATA:-}" = download ]; then
        settings+=(--set-param "profiles.$profile.data.source=download")
        estimate+=(--data download)
    fi
    mtbert plan "${estimate[@]}"
    # Renamed when it has finished, so that a failure keeps the earlier experiment of that name. (--force would train everything again.)
    dvc exp remove --quiet "$profile-new" 2>/dev/null || true
    head=$(git rev-parse HEAD) # names the experiment, even if something is committed while it runs
    dvc exp run --temp --name "$profile-new" "${settings[@]}"
    dvc exp rename --force "$profile-new" "$profile" >/dev/null
    git restore --source="refs/exps/${head:0:2}/${head:2}/$profile" --worktree -- "reports/$profile"
    echo
    echo "The report: $PWD/reports/$profile/index.html"
    echo "\`dvc exp apply $profile\` also brings its models, results and settings here."
}

current=$(sed -nE 's/^profile:[[:space:]]*["'\'']?([A-Za-z0-9_-]+).*/\1/p' params.yaml)
profile=${PROFILE:-$current}
if [ "$profile" != "$current" ]; then
    check_experiment
else
    [ "${DATA:-}" != download ] || fail "DATA=download needs a PROFILE other than $current, which params.yaml selects; for $current, set" \
        "profiles.$current.data.source to download"
    # Outside a git repository (in a downloaded archive, say) DVC works only with this setting.
    [ -e .git ] || dvc config --local core.no_scm true
fi
[ -z "${DATA:-}" ] || [ "$DATA" = download ] || take_data "$DATA"
if [ "$profile" != "$current" ]; then
    run_experiment "$profile"
else
    run_two_lanes
    dvc repro
    echo
    dvc metrics show --precision 3
    echo "The report: $PWD/reports/$current/index.html"
fi
