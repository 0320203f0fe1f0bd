#!/bin/sh
# Make .venv and install this checkout into it, with the versions of constraints.txt.
#
#   scripts/setup.sh run    what `make run` needs
#   scripts/setup.sh test   that, the test tools, and what the tests need of the system
#   scripts/setup.sh lock   write constraints.txt anew
set -eu
cd "$(dirname "$0")/.."

# librdkafka comes in the wheel; its sources are not in the sdist.
export PIP_ONLY_BINARY=confluent-kafka
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore

say() { printf '%s\n' "$@" >&2; }
fail() { say "$@"; exit 1; }

# Install Debian packages: by itself as root, else say which.
system_packages() { # <why> <package>...
    why=$1
    shift
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "Installing $*: $why"
        # An index that is out of date is only a reason to fail when the packages cannot be had.
        DEBIAN_FRONTEND=noninteractive apt-get update -qq || true
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null ||
            fail "apt-get could not install $*: $why"
    else
        fail "Missing: $*. $why" "Debian, Ubuntu: sudo apt-get install $*"
    fi
}

find_python() {
    for name in ${PYTHON:-python3.12 python3.11 python3}; do
        # Asked, not only looked for: a version manager puts names on PATH that do not run.
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$name"
            return
        fi
    done
    fail "Python 3.11 or newer is needed and not on PATH (python3.12, python3.11, python3)." \
        "Install one, or name it: make PYTHON=/path/to/python3.12 ..."
}

make_venv() { # <folder>
    python=$(find_python)
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        version=$("$python" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
        system_packages "$python has no venv module, which makes .venv." "$version-venv"
    fi
    "$python" -m venv "$1"
}

install() { # <extras>
    [ -x .venv/bin/pip ] && .venv/bin/pip --version >/dev/null 2>&1 || make_venv .venv
    say "Installing into .venv"
    .venv/bin/pip install -q -c constraints.txt -e ".[$1]" || exit 1
    .venv/bin/python -c 'import sys; sys.exit(sys.version_info >= (3, 13))' || return 0
    log=.venv/install.log
    if ! .venv/bin/python scripts/meinheld/install.py constraints.txt >"$log" 2>&1; then
        say "The fast worker (meinheld) could not be built, so gunicorn's own serves the API." \
            "It needs a C compiler and Python's headers (Debian: apt-get install gcc python3-dev); see $log."
    fi
}

case ${1-} in
run)
    install jwks,stack,client
    ;;
test)
    packages=
    command -v java >/dev/null || packages="$packages default-jre-headless"
    command -v mvn >/dev/null || packages="$packages maven"
    command -v cc >/dev/null || packages="$packages gcc libc6-dev"
    # Debian keeps it off the PATH of ordinary users.
    command -v nginx >/dev/null || [ -x /usr/sbin/nginx ] || packages="$packages nginx-light"
    # For its promtool.
    command -v promtool >/dev/null || packages="$packages prometheus"
    # shellcheck disable=SC2086 # a list of words
    [ -z "$packages" ] || system_packages "The tests run a real Kafka (Java, fetched by Maven), nginx and promtool, and build meinheld." $packages
    command -v "${CHROMIUM:-chromium}" >/dev/null || command -v chromium-browser >/dev/null ||
        system_packages "The tests look at the pages in it (CHROMIUM names another)." chromium
    python=$(find_python)
    if [ ! -e "$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" ]; then
        version=$("$python" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
        system_packages "meinheld is built with Python's headers." "$version-dev"
    fi
    install jwks,librdkafka,stack,client,test
    ;;
lock)
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    make_venv "$folder/venv"
    MEINHELD_NOGREEN=1 "$folder/venv/bin/pip" install -q ".[jwks,librdkafka,meinheld,stack,client,test]"
    {
        echo "# Every version we run and test with. Made by \`make lock\`, read by \`make\` and by the image."
        "$folder/venv/bin/pip" freeze --exclude todo-api
    } >"$folder/constraints.txt"
    mv "$folder/constraints.txt" constraints.txt
    ;;
*)
    fail "usage: scripts/setup.sh run|test|lock"
    ;;
esac
