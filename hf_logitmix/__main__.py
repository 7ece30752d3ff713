"""`python -m hf_logitmix` is the command `hf-logitmix`, for launchers: `torchrun -m hf_logitmix glue ...`."""

from hf_logitmix.commands.main import main

if __name__ == "__main__":
    main()
