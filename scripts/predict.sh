#!/usr/bin/env bash
# Labels new texts with a fine-tuned lambda_bert: lambda-bert predict, from this checkout.
exec "$(dirname -- "${BASH_SOURCE[0]}")/lambda_bert.sh" predict "$@"
