# Sourced by the commands in ops/, with the project as current folder: makes .venv, installs streamwork with an extra
# into it, and the system's redis-server where it can. `me` is the name of the command that says what goes wrong.
# shellcheck shell=bash

python=.venv/bin/python

fail() {
    printf '%s: %s\n' "$me" "$1" >&2
    exit 2
}

# Progress goes where errors go: what a command prints may be JSON.
note() { printf '%s: %s\n' "$me" "$1" >&2; }

can_apt() { [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; }

apt_install() {
    apt-get update -qq >/dev/null && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$1" >/dev/null
}

base_python() {
    local name
    for name in "${PYTHON:-}" python3 python3.13 python3.12 python3.11 python; do
        if [[ -n $name ]] && "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$name"
            return
        fi
    done
    fail "needs Python 3.11 or newer on PATH (or PYTHON=<path>)"
}

make_venv() {
    local base
    base=$(base_python)
    note "making .venv"
    "$base" -m venv --clear .venv >/dev/null 2>&1 && return
    # Debian keeps the venv module in a package of its own.
    if can_apt && apt_install python3-venv && "$base" -m venv --clear .venv >/dev/null 2>&1; then return; fi
    fail "$base -m venv failed: install the venv module (Debian: apt-get install python3-venv)"
}

venv_works() {
    [[ -x $python ]] && "$python" -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null &&
        grep -qsF "$PWD/.venv" .venv/bin/activate
}

# is_installed EXTRA MODULES: whether .venv has streamwork[EXTRA] of this pyproject.toml, and the modules are there.
# The stamp names the folder too: a copied .venv points at the place it came from.
is_installed() {
    [[ -x $python && $(cat ".venv/.streamwork-$1" 2>/dev/null) == "$PWD $(cksum <pyproject.toml)" ]] &&
        "$python" -c "import $2" 2>/dev/null
}

# install EXTRA MODULES: make it so.
install() {
    local log missing
    if is_installed "$1" "$2"; then return; fi
    if ! venv_works; then make_venv; fi
    note "installing streamwork[$1]"
    log=$(mktemp)
    if ! "$python" -m pip install --quiet --no-input --disable-pip-version-check -e ".[$1]" >"$log" 2>&1; then
        missing=$(grep -oE 'No matching distribution found for .*' "$log" | tail -n 1 || true)
        missing=${missing:+$missing (offline?)}
        missing=${missing:-$(grep -oE '[A-Za-z]+Error: .*' "$log" | tail -n 1 || true)}
        missing=${missing:-$(tail -n 1 "$log")}
        rm -f "$log"
        fail "installing streamwork[$1] failed: $missing"
    fi
    rm -f "$log"
    echo "$PWD $(cksum <pyproject.toml)" >".venv/.streamwork-$1"
}

# Debian starts the server of the package, unless policy-rc.d says no. A subshell, so that the trap always tidies up.
# Where a server is installed already, however old, it is somebody's: it is neither upgraded nor stopped.
apt_redis() (
    if command -v redis-server >/dev/null || [[ -e /usr/bin/redis-server ]]; then exit 1; fi
    can_apt || exit 1
    note "installing redis-server"
    policy=/usr/sbin/policy-rc.d
    if [[ ! -e $policy ]]; then
        trap 'rm -f "$policy"' EXIT
        printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod +x "$policy"
    fi
    apt_install redis-server || exit 1
    if command -v systemctl >/dev/null; then systemctl disable --now redis-server >/dev/null 2>&1 || true; fi
    if command -v service >/dev/null; then service redis-server stop >/dev/null 2>&1 || true; fi
)
