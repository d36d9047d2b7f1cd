#!/usr/bin/env bash
# Fine-tunes a lambda_bert on labelled files: lambda-bert finetune, from this checkout.
exec "$(dirname -- "${BASH_SOURCE[0]}")/lambda_bert.sh" finetune "$@"
