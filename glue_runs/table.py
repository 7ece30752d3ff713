"""The command `hf-logitmix table`, from a checkout."""

import sys

from hf_logitmix.commands.main import main

if __name__ == "__main__":
    main(["table", *sys.argv[1:]])
