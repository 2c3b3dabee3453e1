#!/bin/sh
# Starts tritonserver as the container's first process, so that SIGTERM reaches it. @random at the end of an argument becomes
# a key that is drawn here and told to nobody: an API that is restricted to its bearer is closed.
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
