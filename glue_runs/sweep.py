"""The command `hf-logitmix sweep`, from a checkout."""

import sys

from hf_logitmix.commands.main import main

if __name__ == "__main__":
    main(["sweep", *sys.argv[1:]])
