#!/usr/bin/env bash
# Writes the secrets of the docker compose stack to the file named, once: random, and for nobody else to read.
# What is there stays: another master key could not open the cards sealed with the old one.
set -euo pipefail
file=${1:?which file}

random_bytes() { head -c "$1" /dev/urandom; }

add() { # name, value: unless the file has one
  grep --quiet --no-messages "^$1=." "$file" && return
  { [ ! -s "$file" ] || cat "$file"; echo "$1=$2"; } >"$file.new"
  mv "$file.new" "$file"
  echo "made a new $1 in $file"
}

umask 077
add POSTGRES_PASSWORD "$(random_bytes 16 | od -An -v -tx1 | tr -d ' \n')"
add PENSTOCK_MASTER_KEY "$(random_bytes 32 | base64)"
add PENSTOCK_FINGERPRINT_KEY "$(random_bytes 32 | base64)"
touch "$file"
