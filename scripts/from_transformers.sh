#!/usr/bin/env bash
# A folder of transformers back as a model for fairseq: lambda-bert from-transformers, from this checkout.
exec "$(dirname -- "${BASH_SOURCE[0]}")/lambda_bert.sh" from-transformers "$@"
