#!/usr/bin/env bash
# A trained model as a folder for transformers: lambda-bert to-transformers, from this checkout.
exec "$(dirname -- "${BASH_SOURCE[0]}")/lambda_bert.sh" to-transformers "$@"
