#!/bin/sh
# Make a virtual environment: tools/make_venv.sh FOLDER [PYTHON]
#
# Without PYTHON it is made with the newest supported Python that runs. Being on the PATH is not enough: a shim of
# pyenv's may stand for a Python that is not switched on, and Debian has Pythons without venv and pip.
set -eu

supported='3.13 3.12 3.11' # as in pyproject.toml; tests/tooling/test_make.py compares them
folder=$1
wanted=${2:-}

runs() {
    "$1" -c '
import sys, ensurepip, venv
sys.exit("%d.%d" % sys.version_info[:2] not in sys.argv[1].split())
' "$supported" >/dev/null 2>&1
}

if [ -n "$wanted" ]; then
    if ! runs "$wanted"; then
        echo "PYTHON=$wanted can't be used: it has to be one of Python $supported that runs and has venv and pip." >&2
        exit 1
    fi
else
    for version in $supported; do
        if runs "python$version"; then
            wanted=python$version
            break
        fi
    done
    if [ -z "$wanted" ] && runs python3; then
        wanted=python3
    fi
    if [ -z "$wanted" ]; then
        echo "No supported Python was found: none of python3.13, python3.12, python3.11 and python3 on the PATH is one of" >&2
        echo "Python $supported, runs, and has venv and pip. Install one (Debian and Ubuntu: python3 and python3-venv)," >&2
        echo "or name it: make PYTHON=/path/to/python" >&2
        exit 1
    fi
fi
exec "$wanted" -m venv "$folder"
