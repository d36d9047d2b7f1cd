#!/usr/bin/env bash
# Converts a folder of transformers for fairseq: lambda-bert from-transformers, from this checkout.
exec "$(dirname -- "${BASH_SOURCE[0]}")/lambda_bert.sh" from-transformers "$@"
