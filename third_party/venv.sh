#!/usr/bin/env bash
# venv.sh FOLDER REQUIREMENTS MODULE...
# Leaves a virtual environment in FOLDER with the packages of REQUIREMENTS, in which every MODULE can be imported.
# FOLDER/.ready holds the key of what is installed; it is written last, so an interrupted set-up is never believed.
set -euo pipefail
folder=$1 requirements=$2
shift 2

key() { sha256sum < "$requirements" | cut -d' ' -f1; }
is_ready() { [ "$(cat "$folder/.ready" 2>/dev/null)" = "$(key)" ] && "$folder/bin/python" -c '' 2>/dev/null; }

find_python() {
  local python
  for python in "${PYTHON:-python3}" /usr/bin/python3; do
    if "$python" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
      echo "$python"
      return
    fi
  done
  echo "set-up: no Python 3.10 or newer with venv; install it (Debian: apt-get install python3-venv)" >&2
  echo "        or name another interpreter: make PYTHON=/path/to/python3 ..." >&2
  return 1
}

install() { "$folder/bin/python" -m pip install --quiet --disable-pip-version-check -r "$requirements"; }
works() {
  "$folder/bin/python" - "${modules[@]}" <<'PYTHON'
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
PYTHON
}

modules=("$@")
if is_ready; then exit 0; fi
exec 9<"$0"
if command -v flock >/dev/null; then flock 9; fi  # two makes at once: the second waits, then finds it ready
if is_ready; then exit 0; fi

python=$(find_python)
echo "set-up: installing $requirements into $folder (a few minutes the first time)" >&2
interrupted=
if [ -e "$folder/.installing" ]; then interrupted=yes; fi
rm -f "$folder/.ready"
if ! "$folder/bin/python" -m pip --version >/dev/null 2>&1; then "$python" -m venv --clear "$folder"; fi
touch "$folder/.installing"

# pip cannot always mend what an interrupted run left, nor see that files are gone: then from the start, once. But what
# it refuses for another reason (no network, no such version) must not cost the packages that are there.
if install && works; then
  :
elif [ -n "$interrupted" ] || ! works 2>/dev/null; then
  echo "set-up: $folder is damaged; once more from the start" >&2
  "$python" -m venv --clear "$folder"
  touch "$folder/.installing"
  install
  works
else
  rm -f "$folder/.installing"
  exit 1
fi
rm -f "$folder/.installing"
key > "$folder/.ready"
