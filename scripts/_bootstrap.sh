# Sourced by the bash scripts beside it: finds a Python, keeps the virtual environment current.
#
#     #!/usr/bin/env bash
#     set -euo pipefail
#     . "$(dirname "${BASH_SOURCE[0]}")/_bootstrap.sh"
#     ensure_venv server               # names of extras of pyproject.toml, possibly none
#     exec "$PYTHON" -m wherry.cli ...
#
# Sourcing sets ROOT, the absolute path of the repository, and changes nothing else.
# `ensure_venv EXTRA...` sets PYTHON to the Python of a virtual environment that has Wherry
# (editable) and these extras, and VENV_BIN to the directory of its commands. The environment is
# $WHERRY_VENV, else ROOT/.venv; it is installed into only when pyproject.toml changed or an extra
# is missing, under a lock, so scripts may start side by side. Progress goes to standard error.
# Where it cannot be made, a sentence says what to install and the script ends with exit code 2.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)

# Prints the first Python >= 3.11 that can make a virtual environment.
_find_python() {
    local name without_venv=""
    for name in python3 python3.14 python3.13 python3.12 python3.11 python; do
        command -v "$name" >/dev/null 2>&1 || continue
        "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue
        if "$name" -c 'import ensurepip, venv' 2>/dev/null; then
            command -v "$name"
            return 0
        fi
        without_venv=${without_venv:-$name}
    done
    if [ -n "$without_venv" ]; then
        echo "$without_venv cannot make a virtual environment: its modules venv and ensurepip are" \
            "missing. On Debian and Ubuntu: apt-get install python3-venv" >&2
    else
        echo "no Python 3.11 or newer on PATH (tried python3, python3.11 to python3.14, python):" \
            "install one, on Debian and Ubuntu: apt-get install python3 python3-venv" >&2
    fi
    return 2
}

ensure_venv() {
    local base
    base=$(_find_python) || exit 2
    PYTHON=$("$base" "$ROOT/scripts/_venv.py" "$@") || exit 2
    VENV_BIN=$(dirname "$PYTHON")
}
