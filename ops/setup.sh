#!/usr/bin/env bash
# Makes .venv with the penstock command and everything the checks need; `make setup` runs it when something changed.
# It takes any Python 3.11 to 3.13 of this machine (PYTHON=... names one) and says in words what is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

supported='import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))'

fail() {
  printf 'make setup: %s\n' "$*" >&2
  exit 1
}

# A version manager may leave commands that only say that they are not installed, so each is tried.
find_python() {
  local candidate
  for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python}; do
    if "$candidate" -c "$supported" >/dev/null 2>&1; then
      command -v "$candidate"
      return
    fi
  done
  return 1
}

if ! .venv/bin/python -c "$supported" >/dev/null 2>&1 || ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
  python=$(find_python) ||
    fail "no Python 3.11, 3.12 or 3.13 found${PYTHON:+ as PYTHON=$PYTHON}. Install one, for example:
  Debian, Ubuntu: sudo apt install python3 python3-venv
  macOS:          brew install python@3.13"
  if ! "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    fail "$python cannot make virtual environments: Debian and Ubuntu keep that part in a package of its own.
  sudo apt install python$version-venv"
  fi
  "$python" -m venv --clear .venv
fi

echo 'Installing into .venv; the first time this takes a minute or two ...'
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-input -c constraints.txt -e '.[dev]'
touch .venv/.installed
