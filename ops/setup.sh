#!/usr/bin/env bash
# Makes .venv with the penstock command: `setup.sh local` with what running it here needs, `setup.sh dev` with what the
# checks need on top. Every make verb calls it; when all is as it left it, that takes a moment. When pyproject.toml or the
# pins changed it installs on top. What was interrupted, moved or damaged is made anew.
# It takes any Python from 3.11 of this machine (PYTHON=... names one) and says in words what is missing. VENV=... names
# another folder, for another Python beside the first.
set -euo pipefail
cd "$(dirname "$0")/.."

extra=${1:-dev}
venv=${VENV:-.venv}
stamp=$venv/.installed
identity='import sys; print(sys.base_prefix, sys.version.replace("\n", " "))'

fail() {
  printf 'make setup: %s\n' "$*" >&2
  exit 1
}

# Rather one that the pins have wheels for than a newer one. A version manager may leave commands that only say that they
# are not installed, so each is tried.
find_python() {
  local newest candidate
  for newest in 14 99; do
    for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11 python}; do
      if "$candidate" -c "import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, $newest))" >/dev/null 2>&1; then
        command -v "$candidate"
        return
      fi
    done
  done
  return 1
}

# Scripts in .venv/bin name this folder and this Python.
home() {
  echo "$PWD $("$venv/bin/python" -c "$identity" 2>/dev/null)"
}

wanted() {
  echo "$extra $(cat pyproject.toml constraints.txt ops/setup.sh | cksum)"
}

files() {
  find "$venv" -name __pycache__ -prune -o -type f ! -path "$venv/.install*" -print
}

is_whole() {
  [ -f "$stamp" ] && [ "$(head -n 1 "$stamp")" = "$(home)" ] && tail -n +3 "$stamp" | tr '\n' '\0' | xargs -0 ls >/dev/null 2>&1
}

is_of_another_python() {
  [ -n "${PYTHON:-}" ] && [ "$(home)" != "$PWD $("$PYTHON" -c "$identity" 2>/dev/null)" ]
}

make_anew() {
  local python version
  [ ! -L "$venv" ] || fail "$venv is a link, and what it leads to would be wiped. Remove the link, or name another folder: VENV=..."
  python=$(find_python) ||
    fail "no Python from 3.11 found${PYTHON:+ as PYTHON=$PYTHON}. Install one, for example:
  Debian, Ubuntu: sudo apt install python3 python3-venv
  macOS:          brew install python@3.14"
  if ! "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    fail "$python cannot make virtual environments: Debian and Ubuntu keep that part in a package of its own.
  sudo apt install python$version-venv"
  fi
  "$python" -m venv --clear "$venv"
}

if is_whole && ! is_of_another_python; then
  installed=$(sed -n 2p "$stamp")
  [ "${installed%% *}" != dev ] || extra=dev # which holds local
  [ "$installed" != "$(wanted)" ] || exit 0
else
  make_anew
fi

echo "Installing into $venv; the first time this takes a minute or less ..."
rm -f "$stamp"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input -c constraints.txt -e ".[$extra]"
{ home && wanted && files; } >"$venv/.installing"
mv "$venv/.installing" "$stamp"
