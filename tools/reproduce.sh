#!/usr/bin/env bash
# Run the pipeline and name its report:  [PROFILE=NAME] [DATA=FOLDER|download] tools/reproduce.sh
# Another profile than that of params.yaml runs as an experiment in a workspace of its own, so that nothing here has to be undone.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() { echo "error: $*" >&2; exit 1; }

# Take the course's files of a folder into data/course, where DVC tracks them: experiments get them from its cache.
take_data() {
    local from=${1/#\~\//$HOME/} file found=()
    [ -d "$from" ] || fail "DATA=$1: no such folder; name the one that holds the course's files"
    for file in ids-sst-{train,dev,test-student}.csv {quora,sts}-{train,dev,test-student}.csv; do
        if [ -f "$from/$file" ]; then
            found+=("data/course/$file")
            # Not written into: it may be a link to DVC's cache.
            cmp -s "$from/$file" "data/course/$file" || cp --remove-destination "$from/$file" data/course/
        elif [ -f "data/course/$file" ]; then
            echo "note: data/course/$file stays, though $from has no such file; remove it and its .dvc if it belongs to other data"
        fi
    done
    [ ${#found[@]} -gt 0 ] || fail "DATA=$1: none of the course's files (such as ids-sst-train.csv, quora-train.csv) is there"
    dvc add --quiet "${found[@]}"
}

run_experiment() {
    local profile=$1 head
    git rev-parse --quiet --verify HEAD >/dev/null 2>&1 || fail "PROFILE=$profile runs as an experiment of DVC, which needs a git" \
        "repository with a commit: git init && git add -A && git commit -m start"
    [[ $PWD != *[![:ascii:]]* ]] || fail "PROFILE=$profile runs as an experiment of DVC, which fails where the path holds other" \
        "letters than ASCII: move $PWD"
    local settings=(--set-param "profile=$profile") estimate=("$profile")
    if [ "${DATA:-}" = download ]; then
        settings+=(--set-param "profiles.$profile.data.source=download")
        estimate+=(--data download)
    fi
    mtbert plan "${estimate[@]}"
    # The name is given afterwards: until then an earlier experiment of that name stays. (--force would train everything again.)
    dvc exp remove --quiet "$profile-new" 2>/dev/null || true
    dvc exp run --temp --name "$profile-new" "${settings[@]}"
    dvc exp rename --quiet --force "$profile-new" "$profile"
    head=$(git rev-parse HEAD)
    git restore --source="refs/exps/${head:0:2}/${head:2}/$profile" --worktree -- "reports/$profile"
    echo
    echo "The report: $PWD/reports/$profile/index.html"
    echo "\`dvc exp apply $profile\` brings its models, results and settings here too."
}

[ -z "${DATA:-}" ] || [ "$DATA" = download ] || take_data "$DATA"
current=$(sed -nE 's/^profile:[[:space:]]*["'\'']?([A-Za-z0-9_-]+).*/\1/p' params.yaml)
if [ -n "${PROFILE:-}" ] && [ "$PROFILE" != "$current" ]; then
    run_experiment "$PROFILE"
else
    [ "${DATA:-}" != download ] || fail "DATA=download goes with another PROFILE than that of params.yaml; here, set" \
        "profiles.$current.data.source to download"
    # DVC refuses to work outside a git repository (in a downloaded archive, say) unless told so.
    [ -e .git ] || dvc config --quiet --local core.no_scm true
    dvc repro
    echo
    echo "The report: $PWD/reports/$current/index.html"
fi
