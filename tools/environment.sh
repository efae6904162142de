# Sourced by ./demo and ./check: gives .venv exactly what requirements.lock names, and the project itself.
# A stamp makes every later call quick. Says in one line what is missing, and installs Debian packages when run as root.

export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() { say "$@"; exit 1; }

# debian PACKAGE... : install packages as root; return 1, having said how, where that is not possible.
debian() {
    if ! command -v apt-get >/dev/null; then
        say "missing: $* (this is what Debian and Ubuntu call it; install it with your distribution's tool)"
        return 1
    fi
    if [ "$(id -u)" != 0 ]; then
        say "missing: $*; get it with: sudo apt-get install -y $*"
        return 1
    fi
    say "installing $*"
    local install=(env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@")
    if ! "${install[@]}" </dev/null >/dev/null 2>&1; then
        apt-get update -qq </dev/null >/dev/null 2>&1 || say "apt-get update failed: is there a network?"
        if ! "${install[@]}" </dev/null >/dev/null 2>&1; then
            say "could not install $*; try: apt-get update && apt-get install -y $*"
            return 1
        fi
    fi
}

# The first Python of at least 3.11 on the PATH.
find_python() {
    local candidate
    for candidate in python3 python3.14 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    return 1
}

stamp() {
    { pwd; .venv/bin/python --version; cat requirements.lock pyproject.toml; } 2>/dev/null | sha256sum
}

set_up() {
    [ "$(uname -sm)" = "Linux x86_64" ] || die "virtus needs Linux on x86-64; this is $(uname -sm)"
    if [ -x .venv/bin/virtus ] && [ "$(cat .venv/stamp 2>/dev/null)" = "$(stamp)" ]; then
        compile_all
        return
    fi
    local python
    python=$(find_python) || { debian python3 && python=$(find_python); } ||
        die "Python 3.11 or newer is needed (Debian 12, Ubuntu 24.04 or newer have it)"
    if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
        if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
            debian python3-venv || exit 1
        fi
        "$python" -m venv --clear .venv || die "could not create .venv; is the disk full or read-only?"
    fi
    say "setting up .venv (once; about half a minute)"
    local pip=(.venv/bin/python -m pip --quiet install)
    "${pip[@]}" --require-hashes -r requirements.lock </dev/null ||
        die "installing requirements.lock failed: is a package registry within reach?"
    "${pip[@]}" --no-deps --no-build-isolation -e . </dev/null || die "installing virtus into .venv failed"
    stamp >.venv/stamp
    compile_all
}

# Bytecode of all modules, a second's work: what is imported inside a guest's box cannot be kept from there.
compile_all() {
    .venv/bin/python -m compileall -q src/virtus || true
}
