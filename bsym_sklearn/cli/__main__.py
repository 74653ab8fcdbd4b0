"""``python -m bsym_sklearn.cli`` is ``bsym``, also for torchrun."""

from bsym_sklearn.cli.main import main

if __name__ == "__main__":
    main()
