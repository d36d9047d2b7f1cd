"""What the scripts run. They print results, so fairseq's INFO stays out of them unless LOGLEVEL asks for it."""

import logging
import os

logging.getLogger().setLevel(os.environ.get("LOGLEVEL", "WARNING").upper())
