#!/usr/bin/env bash
# Makes a folder to share from a training run: lambda-bert export, from this checkout.
exec "$(dirname -- "${BASH_SOURCE[0]}")/lambda_bert.sh" export "$@"
