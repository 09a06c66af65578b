#!/usr/bin/env bash
# Fails when a text of the repository names somebody's machine: a home or work folder, or the host of a
# package registry. The product is fetched through whatever registry its user has configured.
set -euo pipefail
cd "$(dirname "$0")/.."

paths='(^|[^A-Za-z0-9_.~/-])/(root|work|home/[a-z][a-z0-9_-]*|Users/[A-Za-z][A-Za-z0-9_-]*)/'
hosts='(pypi|pythonhosted|npmjs|crates\.io-index|index\.crates|static\.crates)[a-z.]*|artifactory'
self='scripts/check-text.sh'

found=0
check() {
    local what="$1" pattern="$2"
    # Files that git ignores are nobody's text.
    if git grep --untracked -nIE "$pattern" -- . ":!Cargo.lock" ":!$self"; then
        echo "text: $what above" >&2
        found=1
    fi
}
check "a path of somebody's machine" "$paths"
check "the host of a package registry" "$hosts"
[ "$found" -eq 0 ] && echo "text: names no machine and no registry"
exit "$found"
