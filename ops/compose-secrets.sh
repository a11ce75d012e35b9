#!/usr/bin/env bash
# Writes the secrets of the docker compose stack to the file named, once: random, and for nobody else to read.
# What is there stays: another master key could not open the cards sealed with the old one.
set -euo pipefail
file=${1:?which file}

random_bytes() { head -c "$1" /dev/urandom; }

if [ ! -e "$file" ]; then
  umask 077
  {
    echo "POSTGRES_PASSWORD=$(random_bytes 16 | od -An -v -tx1 | tr -d ' \n')"
    echo "PENSTOCK_MASTER_KEY=$(random_bytes 32 | base64)"
    echo "PENSTOCK_FINGERPRINT_KEY=$(random_bytes 32 | base64)"
  } >"$file.new"
  mv "$file.new" "$file"
  echo "made new secrets in $file"
fi
touch "$file"
