# What the scripts that try real programs have in common: they install what is missing into target/, and exit with 77
# and one line that says why if it cannot be had. Sourced, with `here`, the folder of the script, and `work`, the folder
# of what it installs, set.
# shellcheck shell=bash

top=$(cd "$here/../.." && pwd)
mkdir -p "$work"
work=$(cd "$work" && pwd)
log=$work/install.log
venv=$work/venv
: >"$log"

skip() {
    echo "skipped: $1 (see $log)"
    exit 77
}

# Runs an installation step silently.
quietly() {
    "$@" >>"$log" 2>&1 </dev/null
}

have() {
    command -v "$1" >/dev/null
}

# Installs Debian packages.
install_packages() {
    (($#)) || return 0
    quietly apt-get update || skip "apt-get cannot be used"
    quietly env DEBIAN_FRONTEND=noninteractive \
        apt-get -o DPkg::Lock::Timeout=120 install -y --no-install-recommends "$@" || skip "apt-get cannot install $*"
}

have_python_venv() {
    python3 -c 'import ensurepip, venv' 2>/dev/null
}

# Installs what requirements.txt names, unless that is there.
install_python_packages() {
    cmp -s "$here/requirements.txt" "$venv/installed" && "$venv/bin/python" -c "" && return
    quietly python3 -m venv --clear "$venv" || skip "python3 cannot make a virtual environment"
    quietly "$venv/bin/pip" install --disable-pip-version-check -r "$here/requirements.txt" ||
        skip "pip cannot install $(tr '\n' ' ' <"$here/requirements.txt")"
    cp "$here/requirements.txt" "$venv/installed"
}

# Prints the program to test: the one named, or a release build.
find_binary() {
    local binary=${1:-$top/target/release/edgepush}
    if (($# == 0)) && [[ ! -x $binary ]]; then
        (cd "$top" && CARGO_TARGET_DIR=target cargo build --release --locked) >&2
    fi
    if [[ ! -x $binary ]]; then
        echo "$binary is not a program" >&2
        exit 2
    fi
    realpath "$binary"
}
