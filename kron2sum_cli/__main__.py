"""``python -m kron2sum_cli``, the same as ``kron2sum``."""

from kron2sum_cli.cli import main

if __name__ == "__main__":
    main()
