#!/usr/bin/env bash
# Prepares a corpus for training: lambda-bert preprocess, from this checkout.
exec "$(dirname -- "${BASH_SOURCE[0]}")/lambda_bert.sh" preprocess "$@"
