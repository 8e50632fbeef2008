"""The Rossi recidivism data as CSV, for ``record_r.R``."""

import sys

from lifelines.datasets import load_rossi

if __name__ == "__main__":
    load_rossi().to_csv(sys.stdout, index=False)
