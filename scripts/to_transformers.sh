#!/usr/bin/env bash
# Converts a trained model for transformers: lambda-bert to-transformers, from this checkout.
exec "$(dirname -- "${BASH_SOURCE[0]}")/lambda_bert.sh" to-transformers "$@"
