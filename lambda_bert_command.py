"""The program ``lambda-bert``: sets what torch reads when it is loaded, then runs :mod:`fairseq_lambda.commands`.

It is outside the package, because importing the package loads fairseq and torch.
"""

import os


def main() -> None:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads sleep while they wait, as in scripts/lambda_bert.sh
    from fairseq_lambda.commands.__main__ import main as run

    run()
