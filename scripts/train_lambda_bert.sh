#!/usr/bin/env bash
# Pretrains a lambda_bert with the recipe of a size: lambda-bert train, from this checkout.
exec "$(dirname -- "${BASH_SOURCE[0]}")/lambda_bert.sh" train "$@"
