#!/usr/bin/env bash
# Scores a model on BLiMP: lambda-bert blimp, from this checkout.
exec "$(dirname -- "${BASH_SOURCE[0]}")/lambda_bert.sh" blimp "$@"
