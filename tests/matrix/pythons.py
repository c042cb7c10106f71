"""The Pythons that are here."""

import os
import shutil
import subprocess


def name_all():
    """pyenv's commands are those of the versions that this variable names: all of them."""
    if shutil.which("pyenv"):
        versions = subprocess.run(["pyenv", "versions", "--bare"], stdout=subprocess.PIPE, check=True).stdout.decode()
        os.environ["PYENV_VERSION"] = ":".join(versions.split())
