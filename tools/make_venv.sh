#!/bin/sh
# Create a virtual environment: tools/make_venv.sh FOLDER [PYTHON]
# Print the path of the Python that would create it: tools/make_venv.sh --which [PYTHON]
#
# PYTHON is a path or a name, such as python3.11. Without it, take the newest supported Python that runs. Being on the
# PATH is not enough: a shim of pyenv may stand for a Python that is not switched on, and Debian has Pythons without venv
# and pip. Of each version, try the distribution's before others: it is built with profile-guided optimization. pyenv
# does not use it by default, and its Python runs the tests' own code 1.4 times as long.
set -eu

supported='3.13 3.12 3.11' # as in pyproject.toml; tests/tooling/test_make.py compares them
system=${SYSTEM_PYTHONS:-/usr/bin}
folder=$1
wanted=${2:-}

runs() {
    "$1" -c '
import sys, ensurepip, venv
sys.exit("%d.%d" % sys.version_info[:2] not in sys.argv[1].split())
' "$supported" >/dev/null 2>&1
}

find_python() { # set `found` to the first Python of this name that runs
    for found in "$system/$1" "$(command -v "$1" || true)"; do
        if runs "$found"; then
            return 0
        fi
    done
    return 1
}

case $wanted in
'')
    for version in $supported ''; do
        if find_python "python${version:-3}"; then
            wanted=$found
            break
        fi
    done
    if [ -z "$wanted" ]; then
        echo "No supported Python was found: none of python3.13, python3.12, python3.11 and python3 on the PATH is one of" >&2
        echo "Python $supported, runs, and has venv and pip. Install one (Debian and Ubuntu: python3 and python3-venv)," >&2
        echo "or name it: make PYTHON=/path/to/python" >&2
        exit 1
    fi
    ;;
*)
    case $wanted in
    */*) found=$wanted ;;
    *) find_python "$wanted" || found= ;;
    esac
    if ! runs "$found"; then
        echo "PYTHON=$wanted can't be used: it has to be one of Python $supported that runs and has venv and pip." >&2
        exit 1
    fi
    wanted=$found
    ;;
esac
if [ "$folder" = --which ]; then
    echo "$wanted"
else
    exec "$wanted" -m venv "$folder"
fi
