"""The command `hf-logitmix glue`, from a checkout."""

import sys

from hf_logitmix.commands.main import main

if __name__ == "__main__":
    main(["glue", *sys.argv[1:]])
