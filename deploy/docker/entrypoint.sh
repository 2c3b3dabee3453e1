#!/bin/sh
# tritonserver as the container's first process. A key that is told to nobody takes the place of @random.
set -eu
read -r key < /proc/sys/kernel/random/uuid
for argument in "$@"; do
  shift
  case $argument in
    *@random) argument=${argument%@random}$key ;;
  esac
  set -- "$@" "$argument"
done
exec tritonserver "$@"
