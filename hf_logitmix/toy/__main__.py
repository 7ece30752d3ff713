"""`python -m hf_logitmix.toy`, which is `hf-logitmix toy`."""

import sys

from hf_logitmix.commands.main import main

if __name__ == "__main__":
    main(["toy", *sys.argv[1:]])
