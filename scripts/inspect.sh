#!/usr/bin/env bash
# Draws what a model's layers do with a text: lambda-bert inspect, from this checkout.
exec "$(dirname -- "${BASH_SOURCE[0]}")/lambda_bert.sh" inspect "$@"
