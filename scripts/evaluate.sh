#!/usr/bin/env bash
# Scores a checkpoint on whole splits: lambda-bert evaluate, from this checkout.
exec "$(dirname -- "${BASH_SOURCE[0]}")/lambda_bert.sh" evaluate "$@"
